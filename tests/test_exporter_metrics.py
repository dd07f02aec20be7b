"""The exporter's own metrics."""

import platform
from importlib.metadata import PackageNotFoundError

import pytest

from health_exporter import __version__, exporter_metrics
from health_exporter.exporter_metrics import (
    CHECKS,
    EXPORTER_METRICS,
    REJECTED,
    TARGETS,
    ExporterMetrics,
    revision,
)
from health_exporter.exposition import PLAIN, encode_registry
from tests.support import pryv, read


def exposed(metrics: ExporterMetrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return read(encode_registry(metrics.registry, PLAIN).decode())


def test_what_is_known_from_the_start_stands_at_zero() -> None:
    metrics = ExporterMetrics()
    metrics.expect([pryv("http://localhost:1", name="a", checks=["hfs", "access"])])
    samples = exposed(metrics)
    for check in ("hfs", "access"):
        labels = frozenset({"collector": "pryv", "target": "a", "check": check}.items())
        assert samples["health_exporter_checks_total", labels] == 0
        assert samples["health_exporter_check_failures_total", labels] == 0
    assert samples["health_exporter_secret_read_failures_total", frozenset({("target", "a")})] == 0
    assert samples["health_exporter_probe_duration_seconds_count", frozenset({("collector", "pryv")})] == 0
    assert samples["health_exporter_requests_in_flight", frozenset()] == 0
    for cause in ("max_requests", "draining"):
        assert samples["health_exporter_requests_rejected_total", frozenset({("cause", cause)})] == 0
    checks = [labels for name, labels in samples if name == "health_exporter_checks_total"]
    assert len(checks) == 2


def test_targets_are_counted_by_collector_and_anew_for_every_set() -> None:
    metrics = ExporterMetrics()
    one, two = pryv("http://localhost:1", name="a"), pryv("http://localhost:1", name="b")
    for targets, number in (([one, two], 2), ([one], 1)):
        metrics.expect(targets)
        assert exposed(metrics)["health_exporter_targets", frozenset({("collector", "pryv")})] == number
    metrics.expect([])
    assert not [name for name, _ in exposed(metrics) if name == TARGETS.name]


def test_build_info_names_the_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter_metrics, "revision", lambda: "abc123")
    samples = exposed(ExporterMetrics())
    wanted = {"version": __version__, "revision": "abc123", "python_version": platform.python_version()}
    assert samples["health_exporter_build_info", frozenset(wanted.items())] == 1


@pytest.mark.parametrize(("version", "wanted"), [("1.2.3+gabc123", "gabc123"), ("1.2.3", "")])
def test_the_revision_is_the_local_part_of_the_version(
    version: str, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter_metrics, "version", lambda _: version)
    revision.cache_clear()
    try:
        assert revision() == wanted
    finally:
        revision.cache_clear()


def test_the_revision_is_empty_where_the_package_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(exporter_metrics, "version", missing)
    revision.cache_clear()
    try:
        assert revision() == ""
    finally:
        revision.cache_clear()


def test_two_exporters_in_one_process_count_apart() -> None:
    one, two = ExporterMetrics(), ExporterMetrics()
    one.counter(CHECKS, "pryv", "a", "hfs").inc()
    one.counter(REJECTED, "draining").inc()
    labels = frozenset({"collector": "pryv", "target": "a", "check": "hfs"}.items())
    assert exposed(one)["health_exporter_checks_total", labels] == 1
    assert ("health_exporter_checks_total", labels) not in exposed(two)


def test_process_and_python_metrics_are_there_and_no_created_ones() -> None:
    names = {name for name, _ in exposed(ExporterMetrics())}
    assert {"process_open_fds", "process_start_time_seconds", "python_info"} <= names
    assert not [name for name in names if name.endswith("_created")]


def test_every_row_of_the_table_is_registered_under_its_name_and_type() -> None:
    metrics = ExporterMetrics()
    metrics.expect([pryv("http://localhost:1")])
    families = {family.name: family for family in metrics.registry.collect()}
    for metric in EXPORTER_METRICS:
        family = families[metric.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (metric.kind, metric.help)
