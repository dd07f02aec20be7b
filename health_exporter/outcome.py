"""What one probe of one target has come to, as samples: the metrics every target has."""

from collections.abc import Iterator
from dataclasses import dataclass

from collectors.base import CheckReport, Metric, Sample
from collectors.settings import TargetSettings


def _gauge(name: str, text: str, *labels: str) -> Metric:
    return Metric(name, "gauge", text, labels, common=("collector", "target"))


SUCCESS = _gauge("probe_success", "1 if every check of the target passed")
DURATION = _gauge("probe_duration_seconds", "How long the whole probe took")
TIMEOUT = _gauge("probe_timeout_seconds", "How long this request could take at most")
TARGET_INFO = _gauge("probe_target_info", "The target's URL and, under /metrics, its static labels", "url")
CHECK_SUCCESS = _gauge("probe_check_success", "1 if the check passed", "check")
CHECK_DURATION = _gauge("probe_check_duration_seconds", "How long the check took; absent if it was not asked", "check")
CHECK_REASON = _gauge(
    "probe_check_failure_reason", "1 for the one reason why the check fails; absent while it passes", "check", "reason"
)
CHECK_STATUS = _gauge("probe_check_http_status_code", "Status of the check's HTTP answer, if one came", "check")
CHECK_PHASE = _gauge(
    "probe_check_http_duration_seconds",
    "How long each phase of the check's HTTP exchange took: resolve, connect, tls, processing, transfer",
    "check",
    "phase",
)
CHECK_ASKED = _gauge(
    "probe_check_asked_timestamp_seconds",
    "When a check with an interval was really asked, Unix time; between, its answer is remembered",
    "check",
)
CERTIFICATE_EXPIRY = _gauge(
    "probe_ssl_earliest_cert_expiry",
    "Earliest expiry of the certificates of the probe's connections, Unix time, also of those that are not accepted;"
    " leaf certificates, whole chains from Python 3.13 on",
)
LOOKUP_TIME = _gauge("probe_dns_lookup_time_seconds", "How long the name lookups for the probe's connections took")

PROBE_METRICS = (
    SUCCESS,
    DURATION,
    TIMEOUT,
    TARGET_INFO,
    CHECK_SUCCESS,
    CHECK_DURATION,
    CHECK_REASON,
    CHECK_STATUS,
    CHECK_PHASE,
    CHECK_ASKED,
    CERTIFICATE_EXPIRY,
    LOOKUP_TIME,
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One probe as one request sees it: the verdicts of the checks that count, and everything that was observed."""

    settings: TargetSettings
    reports: tuple[CheckReport, ...]
    concluded: tuple[Sample, ...]
    duration: float
    certificate_expiry: float | None = None
    lookup_seconds: float | None = None

    @property
    def success(self) -> bool:
        """Whether every check passed."""
        return all(report.reason is None for report in self.reports)

    @property
    def failing(self) -> dict[str, str]:
        """The failing checks and their reasons."""
        return {report.check: str(report.reason) for report in self.reports if report.reason is not None}

    def samples(self, budget: float) -> Iterator[Sample]:
        """Yield all samples but `probe_target_info`; `budget` is what the request could take, in seconds."""
        yield Sample(SUCCESS, (), self.success)
        yield Sample(DURATION, (), self.duration)
        yield Sample(TIMEOUT, (), budget)
        for report in self.reports:
            yield from _check_samples(report)
        if self.certificate_expiry is not None:
            yield Sample(CERTIFICATE_EXPIRY, (), self.certificate_expiry)
        if self.lookup_seconds is not None:
            yield Sample(LOOKUP_TIME, (), self.lookup_seconds)
        for report in self.reports:
            yield from report.samples.values()
        yield from self.concluded


def _check_samples(report: CheckReport) -> Iterator[Sample]:
    check = report.check
    yield Sample(CHECK_SUCCESS, (check,), report.reason is None)
    if report.reason is not None:
        yield Sample(CHECK_REASON, (check, report.reason), 1)
    if report.asked_at is not None:
        yield Sample(CHECK_ASKED, (check,), report.asked_at)
    if report.remembered:
        return
    if report.duration is not None:
        yield Sample(CHECK_DURATION, (check,), report.duration)
    if report.status is not None:
        yield Sample(CHECK_STATUS, (check,), report.status)
    for phase, seconds in report.phases.items():
        yield Sample(CHECK_PHASE, (check, phase), seconds)
