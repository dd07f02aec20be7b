"""The vocabulary: labels made safe, samples held to their metric, reports."""

import hashlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from collectors.base import (
    LABEL_LENGTH,
    NAMED_THINGS,
    CheckReport,
    Clock,
    Metric,
    Sample,
    SteadyTime,
    clean_label,
    gauge,
)
from collectors.failures import Failure, Reason

UP = gauge("thing_up", "Whether it is up", "thing", naming="thing")
STATE = gauge("thing_state", "Its state", "thing", "state", naming="thing")
PLAIN = gauge("plain", "No label")
PAIR = gauge("pair", "Two labels", "a", "b")

ANY_TEXT = st.text(st.characters(), max_size=2 * LABEL_LENGTH + 20)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("", ""),
        ('plain text, with "quotes" and \\', 'plain text, with "quotes" and \\'),
        ("Grüße, 世界 🎉", "Grüße, 世界 🎉"),
        ("a\nb\tc\x00d", "a\ufffdb\ufffdc\ufffdd"),
        ("\x7f\x80\x9f\xa0", "\ufffd\ufffd\ufffd\xa0"),
        ("\ud800x\udfff", "\ufffdx\ufffd"),
        ("\u2028\ue000", "\u2028\ue000"),
        ("x" * 200, "x" * 200),
        ("x" * 201, f"{'x' * 200}~{hashlib.sha256(b'x' * 201).hexdigest()[:8]}"),
        ("\n" * 201, f"{chr(0xFFFD) * 200}~{hashlib.sha256(bytes([10]) * 201).hexdigest()[:8]}"),
    ],
)
def test_a_label_is_made_safe(text: str, clean: str) -> None:
    assert clean_label(text) == clean


def test_long_texts_that_begin_alike_stay_apart() -> None:
    assert clean_label("x" * 300 + "a") != clean_label("x" * 300 + "b")


@settings(deadline=None)
@given(ANY_TEXT)
@example("\ud800" * 300)
@example("\ud83d\ude00")
def test_any_text_makes_a_label_that_can_be_written(text: str) -> None:
    clean = clean_label(text)
    clean.encode()
    assert len(clean) <= LABEL_LENGTH + 9
    assert not any(character < " " or "\x7f" <= character < "\xa0" for character in clean)
    assert clean[:LABEL_LENGTH] == clean_label(text[:LABEL_LENGTH])


@settings(deadline=None)
@given(st.text(st.characters(), max_size=LABEL_LENGTH))
def test_a_label_made_safe_stays_as_it_is(text: str) -> None:
    assert clean_label(clean_label(text)) == clean_label(text)


def numbers(report: CheckReport) -> dict[tuple[str, ...], float]:
    return {(sample.metric.name, *sample.values): sample.number for sample in report.samples.values()}


def test_samples_are_kept_by_their_labels_and_the_later_value_stands() -> None:
    report = CheckReport("test")
    report.add(PLAIN, True)
    report.add(PAIR, 2, b="y", a="x")
    report.add(PAIR, 3, a="x", b="z")
    report.add(PAIR, 4, a="x", b="y")
    assert numbers(report) == {("plain",): 1.0, ("pair", "x", "y"): 4.0, ("pair", "x", "z"): 3.0}
    assert Sample(PAIR, ("x", "y"), 4.0) in report.samples.values()


def test_labels_that_become_one_by_being_made_safe_are_one_sample() -> None:
    report = CheckReport("test")
    report.add(UP, 1, thing="a\n")
    report.add(UP, 0, thing="a\t")
    assert numbers(report) == {("thing_up", "a\ufffd"): 0.0}


@pytest.mark.parametrize(
    "labels", [{}, {"a": "x"}, {"a": "x", "c": "y"}, {"a": "x", "b": "y", "c": "z"}, {"target": "x", "a": "y"}]
)
def test_labels_that_are_not_those_of_the_metric_are_an_error(labels: dict[str, str]) -> None:
    report = CheckReport("test")
    with pytest.raises(TypeError, match="pair has"):
        report.add(PAIR, 1, **labels)
    assert not report.samples


def test_a_thousand_names_are_kept_and_one_more_is_too_large() -> None:
    report = CheckReport("test")
    report.add(PLAIN, 1)
    for number in range(NAMED_THINGS):
        report.add(UP, number, thing=str(number))
    report.add(UP, -1.0, thing="0")
    for name in ("one more", "another"):
        with pytest.raises(Failure) as caught:
            report.add(UP, 1, thing=name)
        assert caught.value.reason == Reason.TOO_LARGE
    assert len(report.samples) == NAMED_THINGS + 1
    assert numbers(report)["thing_up", "0"] == -1.0
    assert ("thing_up", "one more") not in numbers(report)


def test_names_are_counted_not_samples_and_each_metric_apart() -> None:
    report = CheckReport("test")
    for number in range(NAMED_THINGS // 2 + 1):
        for state in ("up", "down"):
            report.add(STATE, 1, thing=str(number), state=state)
        report.add(PAIR, 1, a=str(number), b="")
        report.add(PAIR, 1, a=str(number), b="b")
    for number in range(NAMED_THINGS):
        report.add(UP, 1, thing=f"other {number}")
    assert len(report.samples) == 4 * (NAMED_THINGS // 2 + 1) + NAMED_THINGS


def test_a_report_is_open_until_its_verdict() -> None:
    report = CheckReport("test")
    assert (report.done, report.reason, report.detail) == (False, None, "")
    report.finish(Reason.AUTH, "status 401")
    assert (report.done, report.reason, report.detail) == (True, Reason.AUTH, "status 401")


def test_a_remembered_report_has_the_verdict_and_samples_but_nothing_observed() -> None:
    report = CheckReport("test")
    report.add(PLAIN, 1)
    report.status, report.duration, report.phases, report.asked_at = 200, 0.1, {"connect": 0.1}, 1000.0
    report.finish(Reason.UNHEALTHY, "words")
    again = report.recalled()
    assert (again.check, again.done, again.reason, again.detail) == ("test", True, Reason.UNHEALTHY, "words")
    assert (again.samples, again.asked_at, again.remembered) == (report.samples, 1000.0, True)
    assert (again.status, again.duration, again.phases) == (None, None, {})
    assert not report.remembered


def test_a_report_filled_elsewhere_is_taken_over() -> None:
    report, other = CheckReport("test"), CheckReport("test")
    report.add(PLAIN, 1)
    report.add(UP, 1, thing="a")
    other.add(UP, 0, thing="a")
    other.add(UP, 1, thing="b")
    report.absorb(other)
    assert numbers(report) == {("plain",): 1.0, ("thing_up", "a"): 0.0, ("thing_up", "b"): 1.0}


def test_a_moment_is_held_still_while_the_estimates_agree() -> None:
    steady = SteadyTime()
    estimates = (1000.0, 1002.0, 998.0, 1002.1, 1001.0, 900.0)
    assert [steady.hold(estimate) for estimate in estimates] == [1000.0, 1000.0, 1000.0, 1002.1, 1002.1, 900.0]


def test_common_labels_stand_before_those_of_the_sample() -> None:
    assert PAIR.label_names == ("target", "a", "b")
    metric = Metric("m_total", "counter", "help", ("x",), ("collector", "target"))
    assert metric.label_names == ("collector", "target", "x")
    assert metric != Metric("m_total", "counter", "help", ("x",), ("collector", "target"))


def test_the_clocks_go_on() -> None:
    clock = Clock()
    assert clock.wall() > 1.6e9
    assert clock.monotonic() <= clock.monotonic()
