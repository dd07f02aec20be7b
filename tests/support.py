"""What the tests share: settings, probes of real servers on loopback, and expositions read back."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from collectors import COLLECTORS
from collectors.base import Clock
from collectors.http import HttpClient
from collectors.settings import TargetSettings, TlsConfig
from collectors.tls import TlsContexts, tls_contexts
from health_exporter.exporter_metrics import ExporterMetrics
from health_exporter.outcome import Outcome
from health_exporter.prober import Budget, Prober

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

DEFAULT_TLS = TlsConfig()
_contexts: dict[TlsConfig, TlsContexts] = {}


def contexts_of(*targets: TargetSettings) -> dict[TlsConfig, TlsContexts]:
    """Return the TLS contexts of the targets; those of the default config are built once for all tests."""
    for target in targets:
        if target.tls_config not in _contexts:
            _contexts[target.tls_config] = tls_contexts(target.tls_config)
    return _contexts


def settings(kind: str = "pryv", directory: Path = Path(), **keys: Any) -> TargetSettings:
    """Return the settings of a target, as the config would give them."""
    written = {"name": "t", "collector": kind, **keys}
    return COLLECTORS[kind].settings_model.model_validate(written, context={"directory": directory})


def pryv(url: str, **keys: Any) -> TargetSettings:
    """Return the settings of a single-core Pryv target with the simulator's account."""
    return settings("pryv", url=url, **{"username": "healthmetrics01", "token": "simulated-read-token"} | keys)


@contextlib.asynccontextmanager
async def prober_of(*targets: TargetSettings, clock: Clock | None = None) -> AsyncIterator[Prober]:
    """Give a prober of these targets, and close it."""
    prober = Prober(targets, contexts_of(*targets), HttpClient("tests", clock or Clock()), ExporterMetrics())
    try:
        yield prober
    finally:
        await prober.close()


async def probe_once(target: TargetSettings, seconds: float = 5.0) -> Outcome:
    """Probe a target once, as if it had never been probed before."""
    async with prober_of(target) as prober:
        return await prober.probe(target.name, Budget.starting_now(seconds))


def reasons(outcome: Outcome) -> dict[str, str | None]:
    """Return the verdict of every check: None, or the reason why it fails."""
    return {report.check: report.reason and str(report.reason) for report in outcome.reports}


def samples_of(outcome: Outcome) -> dict[tuple[str, ...], float]:
    """Return what an outcome publishes, by name and label values."""
    return {(sample.metric.name, *sample.values): sample.number for sample in outcome.samples(10.0)}


def read(exposition: str, *, openmetrics: bool = False) -> Samples:
    """Return the samples of an exposition; a series that stands twice is an error."""
    found: Samples = {}
    for family in (parse_openmetrics if openmetrics else parse_text)(exposition):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, f"{key} stands twice"
            found[key] = sample.value
    return found


class FakeClock:
    """A clock that only moves when told to: `clock` is what a client takes."""

    def __init__(self, wall: float = 1_800_000_000.0) -> None:
        """Begin at a Unix time."""
        self.now = wall
        self.clock = Clock(lambda: self.now, lambda: self.now - wall)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
