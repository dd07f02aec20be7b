"""Outcomes: which samples a probe comes to."""

from collectors.base import CheckReport, Sample, gauge
from collectors.failures import Reason
from health_exporter.outcome import PROBE_METRICS, Outcome
from tests.support import pryv, samples_of

SETTINGS = pryv("http://localhost:1")
THING = gauge("thing", "A thing", "name")


def passed(check: str) -> CheckReport:
    """Return the report of a check that was asked and passed."""
    report = CheckReport(check)
    report.duration, report.status, report.asked_at = 0.25, 200, 1_800_000_000.0
    report.phases = {"connect": 0.125, "processing": 0.0625}
    report.add(THING, 7, name=check)
    report.finish(None)
    return report


def failed(check: str) -> CheckReport:
    """Return the report of a check that failed before anything was observed."""
    report = CheckReport(check)
    report.finish(Reason.DNS, "words")
    return report


def test_a_check_that_passed_gives_everything_that_was_observed() -> None:
    outcome = Outcome(SETTINGS, (passed("a"),), (Sample(THING, ("all",), 2),), 1.5, 1_900_000_000.0, 0.5)
    assert samples_of(outcome) == {
        ("probe_success",): 1,
        ("probe_duration_seconds",): 1.5,
        ("probe_timeout_seconds",): 10.0,
        ("probe_ssl_earliest_cert_expiry",): 1_900_000_000,
        ("probe_dns_lookup_time_seconds",): 0.5,
        ("probe_check_success", "a"): 1,
        ("probe_check_duration_seconds", "a"): 0.25,
        ("probe_check_http_status_code", "a"): 200,
        ("probe_check_http_duration_seconds", "a", "connect"): 0.125,
        ("probe_check_http_duration_seconds", "a", "processing"): 0.0625,
        ("probe_check_asked_timestamp_seconds", "a"): 1_800_000_000,
        ("thing", "a"): 7,
        ("thing", "all"): 2,
    }


def test_a_check_that_failed_gives_its_one_reason_and_nothing_that_was_not_observed() -> None:
    assert samples_of(Outcome(SETTINGS, (failed("a"),), (), 1.5)) == {
        ("probe_success",): 0,
        ("probe_duration_seconds",): 1.5,
        ("probe_timeout_seconds",): 10.0,
        ("probe_check_success", "a"): 0,
        ("probe_check_failure_reason", "a", "dns"): 1,
    }


def test_a_remembered_answer_gives_verdict_samples_and_when_it_was_asked() -> None:
    samples = samples_of(Outcome(SETTINGS, (passed("a").recalled(),), (), 1.5))
    assert {key: number for key, number in samples.items() if "a" in key} == {
        ("probe_check_success", "a"): 1,
        ("probe_check_asked_timestamp_seconds", "a"): 1_800_000_000,
        ("thing", "a"): 7,
    }


def test_one_failing_check_makes_the_target_fail() -> None:
    outcome = Outcome(SETTINGS, (passed("a"), failed("b")), (), 1.5)
    assert not outcome.success
    assert outcome.failing == {"b": "dns"}


def test_a_target_of_which_every_check_passed_succeeds() -> None:
    outcome = Outcome(SETTINGS, (passed("a"), passed("b")), (), 1.5)
    assert outcome.success
    assert outcome.failing == {}


def test_every_metric_of_every_target_carries_collector_and_target() -> None:
    assert {metric.common for metric in PROBE_METRICS} == {("collector", "target")}
