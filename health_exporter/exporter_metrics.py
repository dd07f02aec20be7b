"""The exporter's own metrics: about itself, its requests and how often each check was made."""

import platform
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from collectors.base import Kind, Metric
from collectors.settings import TargetSettings
from health_exporter import __version__


def _own(kind: Kind, name: str, text: str, *labels: str) -> Metric:
    return Metric(name, kind, text, labels, common=())


BUILD_INFO = _own(
    "gauge",
    "health_exporter_build_info",
    "The exporter's version, the revision it was built from (empty if not known), and the Python that runs it",
    "version",
    "revision",
    "python_version",
)
TARGETS = _own("gauge", "health_exporter_targets", "Configured targets", "collector")
RELOAD_SUCCESSFUL = _own(
    "gauge", "health_exporter_config_last_reload_successful", "1 if the config was good when it was last read"
)
RELOAD_TIME = _own(
    "gauge",
    "health_exporter_config_last_reload_success_timestamp_seconds",
    "When a good config was last read, Unix time",
)
CHECKS = _own(
    "counter",
    "health_exporter_checks_total",
    "Verdicts given; a probe that several requests share counts once, a check that is left out not at all",
    "collector",
    "target",
    "check",
)
CHECK_FAILURES = _own(
    "counter", "health_exporter_check_failures_total", "Verdicts that were failures", "collector", "target", "check"
)
PROBE_DURATION = _own("histogram", "health_exporter_probe_duration_seconds", "How long whole probes took", "collector")
REQUESTS = _own("counter", "health_exporter_http_requests_total", "Requests answered", "handler", "code")
IN_FLIGHT = _own("gauge", "health_exporter_requests_in_flight", "Requests to /metrics and /probe being answered")
REJECTED = _own(
    "counter", "health_exporter_requests_rejected_total", "Requests to /metrics and /probe turned away", "cause"
)
SECRET_FAILURES = _own(
    "counter",
    "health_exporter_secret_read_failures_total",
    "Secret files that could not be read again at a probe; the last good value stays in use",
    "target",
)

EXPORTER_METRICS = (
    BUILD_INFO,
    TARGETS,
    RELOAD_SUCCESSFUL,
    RELOAD_TIME,
    CHECKS,
    CHECK_FAILURES,
    PROBE_DURATION,
    REQUESTS,
    IN_FLIGHT,
    REJECTED,
    SECRET_FAILURES,
)

REJECTION_CAUSES = ("max_requests", "draining")


class ExporterMetrics:
    """The live values of `EXPORTER_METRICS`, with those of the process and of Python, in a registry of their own."""

    def __init__(self) -> None:
        """Make every metric; those with known label values start at 0."""
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._gauges = {m: Gauge(m.name, m.help, m.labels, registry=self.registry) for m in _of_kind("gauge")}
        self._counters = {m: Counter(m.name, m.help, m.labels, registry=self.registry) for m in _of_kind("counter")}
        self.probe_duration = Histogram(
            PROBE_DURATION.name, PROBE_DURATION.help, PROBE_DURATION.labels, registry=self.registry
        )
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self.gauge(BUILD_INFO, __version__, revision(), platform.python_version()).set(1)
        for cause in REJECTION_CAUSES:
            self.counter(REJECTED, cause)

    def gauge(self, metric: Metric, *values: str) -> Gauge:
        """Return the live gauge of a row with these label values."""
        return self._gauges[metric].labels(*values) if values else self._gauges[metric]

    def counter(self, metric: Metric, *values: str) -> Counter:
        """Return the live counter of a row with these label values."""
        return self._counters[metric].labels(*values)

    def expect(self, targets: Iterable[TargetSettings]) -> None:
        """Begin every counter of the targets at 0, and count the targets."""
        self._gauges[TARGETS].clear()
        for target in targets:
            self.gauge(TARGETS, target.collector).inc()
            self.probe_duration.labels(target.collector)
            self.counter(SECRET_FAILURES, target.name)
            for check in target.check_names():
                self.counter(CHECKS, target.collector, target.name, check)
                self.counter(CHECK_FAILURES, target.collector, target.name, check)


def _of_kind(kind: Kind) -> list[Metric]:
    return [metric for metric in EXPORTER_METRICS if metric.kind == kind]


@cache
def revision() -> str:
    """Return the revision the installed package was built from, as its local version says; empty if it does not."""
    try:
        return version("health-exporter").partition("+")[2]
    except PackageNotFoundError:
        return ""
