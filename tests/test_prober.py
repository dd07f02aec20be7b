"""Probing: deadlines, shared probes, partial results, counters, secrets and the log of what changes."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from collectors.base import CheckReport, Clock, Conclusion, Sample
from collectors.failures import Failure, Reason
from collectors.http import HttpClient
from collectors.settings import TargetSettings
from health_exporter.exporter_metrics import ExporterMetrics
from health_exporter.outcome import Outcome
from health_exporter.prober import GATE_WIDTH, Budget, Gate, Prober
from tests.conftest import ANSWERED, Asking, Upstream, served, until
from tests.support import FakeClock, contexts_of, prober_of, reasons, samples_of

LONG = 30.0
"""Seconds that no test waits out."""


def value(prober: Prober, name: str, **labels: str) -> float | None:
    """Return a metric of the exporter."""
    return prober._metrics.registry.get_sample_value(name, labels)


def counted(prober: Prober, check: str, target: str = "t") -> tuple[float | None, float | None]:
    """Return how many verdicts, and how many failures among them, were counted."""
    labels = {"collector": "asking", "target": target, "check": check}
    return (
        value(prober, "health_exporter_checks_total", **labels),
        value(prober, "health_exporter_check_failures_total", **labels),
    )


def ask(prober: Prober, seconds: float = LONG, name: str = "t") -> asyncio.Task[Outcome]:
    """Begin a request for a target."""
    return asyncio.create_task(prober.probe(name, Budget.starting_now(seconds)))


async def probe(prober: Prober, seconds: float = LONG) -> dict[str, str | None]:
    """Probe, and return the verdicts."""
    return reasons(await prober.probe("t", Budget.starting_now(seconds)))


def joined(prober: Prober, requests: int, name: str = "t") -> bool:
    """Return whether so many requests wait for the probe under way."""
    flight = prober.targets[name].flight
    return flight is not None and flight.waiting == requests


# --- budgets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [1e-3, 0.02, 0.1, 0.5, 1.0, 9.5, 119.5, 1e6])
async def test_checks_end_before_the_request_leaves_and_it_leaves_before_its_budget_is_over(seconds: float) -> None:
    arrival = asyncio.get_running_loop().time()
    budget = Budget.starting_now(seconds)
    latest = asyncio.get_running_loop().time()
    assert budget.seconds == seconds
    assert arrival < budget.checks_until < budget.leave_at < latest + seconds


@pytest.mark.parametrize(("seconds", "reserve"), [(0.05, 0.025), (0.1, 0.05), (0.5, 0.05), (1.0, 0.05), (10.0, 0.5)])
async def test_the_reserve_is_a_twentieth_of_the_budget_and_fifty_milliseconds_at_least(
    seconds: float, reserve: float
) -> None:
    before = asyncio.get_running_loop().time()
    budget = Budget.starting_now(seconds)
    after = asyncio.get_running_loop().time()
    assert before <= budget.checks_until - seconds + reserve <= after + 1e-9


async def test_a_check_times_out_at_its_own_timeout_within_a_larger_budget(upstream: Upstream) -> None:
    async with prober_of(upstream.target("t", "ok", "hang", timeout=0.5)) as prober:
        began = time.perf_counter()
        outcome = await prober.probe("t", Budget.starting_now(LONG))
        assert time.perf_counter() - began < LONG / 2
    assert reasons(outcome) == {"ok": None, "hang": "timeout"}


async def test_a_check_times_out_at_the_end_of_the_budget_when_its_own_timeout_is_later(upstream: Upstream) -> None:
    async with prober_of(upstream.target("t", "ok", "hang", timeout=LONG)) as prober:
        began = time.perf_counter()
        outcome = await prober.probe("t", Budget.starting_now(0.8))
        assert time.perf_counter() - began < LONG / 2
    assert reasons(outcome) == {"ok": None, "hang": "timeout"}
    samples = samples_of(outcome)
    assert samples["probe_success",] == 0
    assert samples["asking_answered", "ok"] == 1
    assert 0.1 < samples["probe_check_duration_seconds", "hang"] < LONG / 2


async def test_what_a_check_has_reported_before_it_times_out_stays(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def two_requests(self: Asking, name: str, report: CheckReport) -> None:
        origin = self.http.origin(self.settings.address)
        await self.http.ask(report, "GET", origin, "/ok")
        report.add(ANSWERED, 1, path="first")
        await self.http.ask(report, "GET", origin, "/hang")

    monkeypatch.setattr(Asking, "ask", two_requests)
    async with prober_of(upstream.target("t", "both", timeout=1.0)) as prober:
        outcome = await prober.probe("t", Budget.starting_now(LONG))
    assert reasons(outcome) == {"both": "timeout"}
    samples = samples_of(outcome)
    assert samples["asking_answered", "first"] == 1
    assert samples["probe_check_http_status_code", "both"] == 200


async def test_the_detail_of_a_timeout_says_the_phase(upstream: Upstream) -> None:
    async with prober_of(upstream.target("t", "hang", timeout=1.0)) as prober:
        outcome = await prober.probe("t", Budget.starting_now(LONG))
    assert outcome.reports[0].detail == "not done within its time, in the phase processing"


async def test_a_check_that_is_slow_to_let_go_does_not_hold_the_request(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go = asyncio.Event()

    async def stubborn(self: Asking, name: str, report: CheckReport) -> None:
        if name == "stubborn":
            report.add(ANSWERED, 1, path="before")
            try:
                await asyncio.Event().wait()
            finally:
                await let_go.wait()

    monkeypatch.setattr(Asking, "ask", stubborn)
    async with prober_of(upstream.target("t", "ok", "stubborn", timeout=0.1)) as prober:
        outcome = await prober.probe("t", Budget.starting_now(0.3))
        assert reasons(outcome) == {"ok": None, "stubborn": "timeout"}
        assert samples_of(outcome)["asking_answered", "before"] == 1
        assert outcome.reports[1].detail == "not done when the request had to be answered"
        assert counted(prober, "stubborn") == (1, 1)
        assert counted(prober, "ok") == (1, 0)
        let_go.set()
        await until(lambda: not prober._flights)
        assert counted(prober, "stubborn") == (1, 1)


# --- shared probes --------------------------------------------------------------------------------------------------


async def test_two_requests_at_once_share_one_probe_and_it_counts_once(upstream: Upstream) -> None:
    async with prober_of(upstream.target("t", "wait", timeout=LONG)) as prober:
        requests = [ask(prober), ask(prober)]
        await until(lambda: joined(prober, 2) and len(upstream.asked) == 1)
        upstream.gate.set()
        outcomes = await asyncio.gather(*requests)
        assert [reasons(outcome) for outcome in outcomes] == [{"wait": None}] * 2
        assert upstream.asked == ["/t/wait"]
        assert counted(prober, "wait") == (1, 0)
        assert value(prober, "health_exporter_probe_duration_seconds_count", collector="asking") == 1


async def test_requests_one_after_the_other_are_probes_of_their_own(upstream: Upstream) -> None:
    async with prober_of(upstream.target("t", "ok")) as prober:
        assert [await probe(prober), await probe(prober)] == [{"ok": None}] * 2
        assert upstream.asked == ["/t/ok"] * 2
        assert counted(prober, "ok") == (2, 0)


async def test_a_joiner_with_a_later_deadline_lengthens_the_probe(upstream: Upstream) -> None:
    async with prober_of(upstream.target("t", "ok", "wait", timeout=LONG)) as prober:
        first = ask(prober, 0.8)
        await until(lambda: len(upstream.asked) == 2)
        second = ask(prober)
        assert reasons(await first) == {"ok": None, "wait": "timeout"}
        assert counted(prober, "wait") == (0, 0)
        assert not second.done()
        upstream.gate.set()
        assert reasons(await second) == {"ok": None, "wait": None}
        assert len(upstream.asked) == 2
        assert counted(prober, "wait") == (1, 0)


async def test_a_joiner_with_an_earlier_deadline_leaves_at_it_and_shortens_nothing(upstream: Upstream) -> None:
    async with prober_of(upstream.target("t", "ok", "wait", timeout=LONG)) as prober:
        first = ask(prober)
        await until(lambda: len(upstream.asked) == 2)
        assert reasons(await ask(prober, 0.6)) == {"ok": None, "wait": "timeout"}
        upstream.gate.set()
        assert reasons(await first) == {"ok": None, "wait": None}
        assert counted(prober, "wait") == (1, 0)


@pytest.mark.parametrize("seconds", [0.5, LONG / 2])
async def test_a_joiner_never_lengthens_a_check_beyond_its_own_timeout(seconds: float, upstream: Upstream) -> None:
    async with prober_of(upstream.target("t", "hang", timeout=0.8)) as prober:
        began = time.perf_counter()
        first = ask(prober, seconds)
        await until(lambda: joined(prober, 1) and len(upstream.asked) == 1)
        second = ask(prober, LONG)
        assert reasons(await first) == reasons(await second) == {"hang": "timeout"}
        assert time.perf_counter() - began < LONG / 2
        assert counted(prober, "hang") == (1, 1)


async def test_the_first_asker_going_away_does_not_hurt_the_second(upstream: Upstream) -> None:
    async with prober_of(upstream.target("t", "wait", timeout=LONG)) as prober:
        first, second = ask(prober), ask(prober)
        await until(lambda: joined(prober, 2) and len(upstream.asked) == 1)
        first.cancel()
        await until(lambda: joined(prober, 1))
        upstream.gate.set()
        assert reasons(await second) == {"wait": None}
        assert first.cancelled()
        assert upstream.server.accepted == 1
        assert counted(prober, "wait") == (1, 0)


async def test_when_the_last_asker_has_gone_the_connection_is_closed_and_nothing_counted(upstream: Upstream) -> None:
    async with prober_of(upstream.target("t", "wait", timeout=LONG)) as prober:
        requests = [ask(prober), ask(prober)]
        await until(lambda: joined(prober, 2) and upstream.server.connections == 1)
        for request in requests:
            request.cancel()
        await until(lambda: upstream.server.connections == 0)
        assert prober.targets["t"].flight is None
        assert counted(prober, "wait") == (0, 0)
        assert value(prober, "health_exporter_probe_duration_seconds_count", collector="asking") == 0
        upstream.gate.set()
        assert await probe(prober) == {"wait": None}


async def test_a_probe_that_is_still_being_given_up_does_not_take_the_place_of_the_next(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go, begun, plain = asyncio.Event(), asyncio.Event(), Asking.ask

    async def stubborn_at_first(self: Asking, name: str, report: CheckReport) -> None:
        if begun.is_set():
            return await plain(self, name, report)
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await let_go.wait()

    monkeypatch.setattr(Asking, "ask", stubborn_at_first)
    async with prober_of(upstream.target("t", "wait", timeout=LONG)) as prober:
        gone = ask(prober)
        await begun.wait()
        gone.cancel()
        second = ask(prober)
        await until(lambda: len(upstream.asked) == 1)
        let_go.set()
        await until(lambda: len(prober._flights) == 1)
        third = ask(prober)
        await until(lambda: joined(prober, 2))
        upstream.gate.set()
        assert reasons(await second) == reasons(await third) == {"wait": None}
        assert upstream.asked == ["/t/wait"]
        assert counted(prober, "wait") == (1, 0)


async def test_a_request_that_has_no_time_at_all_says_timeout(upstream: Upstream) -> None:
    async with prober_of(upstream.target("t", "ok", "also")) as prober:
        assert await probe(prober, 1e-9) == {"ok": "timeout", "also": "timeout"}
        assert counted(prober, "ok") == (1, 1)


async def test_a_probe_cut_by_the_deadline_of_its_only_request_is_counted(upstream: Upstream) -> None:
    async with prober_of(upstream.target("t", "ok", "hang", timeout=LONG)) as prober:
        assert await probe(prober, 0.8) == {"ok": None, "hang": "timeout"}
        assert counted(prober, "hang") == (1, 1)
        assert counted(prober, "ok") == (1, 0)
        await until(lambda: upstream.server.connections == 0)


async def test_a_probe_that_ends_in_the_moment_its_request_leaves_counts_once(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = Budget.starting_now(0.8)

    def slow(self: Asking, reports: Mapping[str, CheckReport]) -> Conclusion:
        while asyncio.get_running_loop().time() <= budget.leave_at:
            time.sleep(0.001)
        return Conclusion()

    monkeypatch.setattr(Asking, "conclude", slow)
    async with prober_of(upstream.target("t", "ok")) as prober:
        assert reasons(await prober.probe("t", budget)) == {"ok": None}
        assert counted(prober, "ok") == (1, 0)


async def test_closing_cancels_probes_under_way_and_lets_go_of_their_connections(upstream: Upstream) -> None:
    async with prober_of(upstream.target("t", "hang", timeout=LONG)) as prober:
        request = ask(prober)
        await until(lambda: upstream.server.connections == 1)
    with contextlib.suppress(asyncio.CancelledError):
        await request
    assert not prober._flights
    await until(lambda: upstream.server.connections == 0)


# --- many targets ---------------------------------------------------------------------------------------------------


async def test_one_target_that_never_answers_costs_the_others_nothing(upstream: Upstream) -> None:
    healthy = [upstream.target(f"good-{n}", "ok", "also") for n in range(50)]
    async with served(upstream.target("bad", "hang", "ok"), *healthy) as service:
        began = time.perf_counter()
        got = await service.get("/metrics", {"X-Prometheus-Scrape-Timeout-Seconds": "2"})
        assert time.perf_counter() - began < 2
        samples = got.samples
    success = {dict(labels)["target"]: number for (name, labels), number in samples.items() if name == "probe_success"}
    assert success == {"bad": 0, **{f"good-{n}": 1 for n in range(50)}}
    failing = {labels for name, labels in samples if name == "probe_check_failure_reason"}
    wanted = {"collector": "asking", "target": "bad", "check": "hang", "reason": "timeout"}
    assert failing == {frozenset(wanted.items())}
    timeouts = {number for (name, _), number in samples.items() if name == "probe_timeout_seconds"}
    assert timeouts == {1.5}


async def test_hundreds_of_silent_targets_take_no_sample_from_the_healthy_ones() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            await reader.read()

    hung = Upstream()
    made = Upstream()
    listener = await asyncio.start_server(silent, "127.0.0.1", 0, backlog=1024)
    hung.server.host, hung.server.port = listener.sockets[0].getsockname()
    async with listener, made.server:
        targets = [hung.target(f"bad-{n}", "hang", timeout=LONG) for n in range(200)]
        targets[150:150] = [made.target(f"good-{n}", "ok", "also") for n in range(50)]
        async with served(*targets) as service:
            got = await service.get("/metrics", {"X-Prometheus-Scrape-Timeout-Seconds": "5"})
            samples = got.samples
    passed = {
        dict(labels)["target"] for (name, labels), number in samples.items() if name == "probe_success" and number
    }
    assert passed == {f"good-{n}" for n in range(50)}
    answered = [labels for name, labels in samples if name == "asking_answered"]
    assert len(answered) == 100
    reasons_given = [dict(labels)["reason"] for name, labels in samples if name == "probe_check_failure_reason"]
    assert reasons_given == ["timeout"] * 200


async def test_a_gate_lets_a_few_in_and_the_next_when_one_leaves() -> None:
    gate = Gate(budget=LONG, targets=1)
    gate._hold = LONG
    turns = [await gate.enter() for _ in range(GATE_WIDTH)]
    waiting = asyncio.create_task(gate.enter())
    await asyncio.sleep(0)
    assert not waiting.done()
    turns[0].leave()
    turns[0].leave()
    turns[0] = await waiting
    another = asyncio.create_task(gate.enter())
    await asyncio.sleep(0)
    assert not another.done()
    another.cancel()
    for turn in turns:
        turn.leave()


async def test_a_turn_at_the_gate_ends_by_itself() -> None:
    gate = Gate(budget=LONG, targets=10**9)
    async with asyncio.timeout(LONG):
        for _ in range(3 * GATE_WIDTH):
            await gate.enter()


async def test_a_target_that_gets_no_turn_says_timeout_for_every_check(upstream: Upstream) -> None:
    gate = Gate(budget=LONG, targets=1)
    gate._hold = LONG
    turns = [await gate.enter() for _ in range(GATE_WIDTH)]
    async with prober_of(upstream.target("t", "ok", "also")) as prober:
        outcome = await prober.probe("t", Budget.starting_now(0.1), gate)
        assert reasons(outcome) == {"ok": "timeout", "also": "timeout"}
        assert upstream.asked == []
    for turn in turns:
        turn.leave()


async def test_a_request_that_joins_a_probe_needs_no_turn(upstream: Upstream) -> None:
    gate = Gate(budget=LONG, targets=1)
    gate._hold = LONG
    turns = [await gate.enter() for _ in range(GATE_WIDTH)]
    async with prober_of(upstream.target("t", "wait", timeout=LONG)) as prober:
        first = ask(prober)
        await until(lambda: len(upstream.asked) == 1)
        second = asyncio.create_task(prober.probe("t", Budget.starting_now(LONG), gate))
        await until(lambda: joined(prober, 2))
        upstream.gate.set()
        assert reasons(await first) == reasons(await second) == {"wait": None}
    for turn in turns:
        turn.leave()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_scrapes_and_cancelled_scrapes_leave_nothing_behind(upstream: Upstream) -> None:
    """504 scrapes, half of them left by their client: of every four targets one by both, two by one of two."""
    rounds, targets = 21, 12
    names = [f"t{n}" for n in range(targets)]
    async with served(*(upstream.target(name, "wait", timeout=LONG) for name in names)) as service:
        upstream.gate.set()
        assert (await service.get("/metrics")).status == 200
        await until(lambda: upstream.server.connections == 0)
        before = open_files(), len(asyncio.all_tasks())
        probed = service.prober.targets.values()
        for _ in range(rounds):
            upstream.gate.clear()
            requests = [asyncio.create_task(service.get(f"/probe?target={name}")) for name in names for _ in range(2)]
            await until(lambda: sum(target.flight.waiting for target in probed if target.flight) == 2 * targets)
            await until(lambda: upstream.server.connections == targets)
            left = [request for at, request in enumerate(requests) if at % 8 in {0, 1, 2, 5}]
            for request in left:
                request.cancel()
            await until(lambda: service.in_flight == targets)
            upstream.gate.set()
            answers = await asyncio.gather(*requests, return_exceptions=True)
            assert [isinstance(answer, asyncio.CancelledError) for answer in answers] == [
                request in left for request in requests
            ]
            assert {got.status for got in answers if not isinstance(got, BaseException)} == {200}
        await until(lambda: upstream.server.connections == 0)
        await until(lambda: open_files() <= before[0])
        await until(lambda: len(asyncio.all_tasks()) <= before[1])
        assert service.in_flight == 0
        assert not service.prober._flights


# --- bugs -----------------------------------------------------------------------------------------------------------


def raising(*_: Any, **__: Any) -> Any:
    raise ZeroDivisionError("a bug")


async def test_a_bug_in_a_check_is_internal_and_logged_and_hurts_nothing_else(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain = Asking.ask

    async def broken(self: Asking, name: str, report: CheckReport) -> None:
        await plain(self, name, report)
        if name == "bug":
            raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Asking, "ask", broken)
    async with served(upstream.target("t", "ok", "bug"), upstream.target("other", "ok")) as service:
        got = await service.get("/metrics")
        assert counted(service.prober, "bug") == (1, 1)
    assert got.status == 200
    found = {
        tuple(dict(labels)[label] for label in ("target", "check", "reason"))
        for name, labels in got.samples
        if name == "probe_check_failure_reason"
    }
    assert found == {("t", "bug", "internal")}
    logged = [record for record in caplog.records if record.exc_info]
    assert [(vars(record)["target"], vars(record)["check"]) for record in logged] == [("t", "bug")]
    assert logged[0].exc_info is not None
    assert logged[0].exc_info[0] is ZeroDivisionError


@pytest.mark.parametrize("method", ["__init__", "checks", "conclude"])
async def test_a_bug_in_a_collector_makes_its_target_internal_and_the_scrape_is_still_answered(
    method: str, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain = getattr(Asking, method)

    def broken(self: Asking, *arguments: Any) -> Any:
        if (arguments[0] if method == "__init__" else self.settings).name == "t":
            raise ZeroDivisionError("a bug")
        return plain(self, *arguments)

    monkeypatch.setattr(Asking, method, broken)
    async with served(upstream.target("t", "ok", "also"), upstream.target("other", "ok")) as service:
        for scrape in (1, 2):
            got = await service.get("/metrics")
            assert got.status == 200
            reasons_of_t = {
                dict(labels)["check"]: dict(labels)["reason"]
                for name, labels in got.samples
                if name == "probe_check_failure_reason" and dict(labels)["target"] == "t"
            }
            assert reasons_of_t == {"ok": "internal", "also": "internal"}
            other = frozenset({"collector": "asking", "target": "other"}.items())
            assert got.samples["probe_success", other] == 1
            assert counted(service.prober, "also") == (scrape, scrape)
            assert counted(service.prober, "ok", "other") == (scrape, 0)
    assert any(record.exc_info and vars(record)["target"] == "t" for record in caplog.records)


async def test_a_sample_that_cannot_be_written_makes_its_target_internal_and_the_scrape_is_still_answered(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: Asking, reports: Mapping[str, CheckReport]) -> Conclusion:
        return Conclusion([Sample(ANSWERED, (), 1)] if self.settings.name == "t" else [])

    monkeypatch.setattr(Asking, "conclude", broken)
    async with served(upstream.target("t", "ok"), upstream.target("other", "ok")) as service:
        for path in ("/metrics", "/probe?target=t"):
            got = await service.get(path)
            assert got.status == 200
            key = frozenset({"collector": "asking", "target": "t", "check": "ok", "reason": "internal"}.items())
            assert got.samples["probe_check_failure_reason", key] == 1
    assert any(record.exc_info and vars(record)["target"] == "t" for record in caplog.records)


async def test_a_bug_while_a_probe_is_cut_by_a_deadline_is_internal(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stubborn(self: Asking, name: str, report: CheckReport) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await let_go.wait()

    let_go = asyncio.Event()
    monkeypatch.setattr(Asking, "ask", stubborn)
    monkeypatch.setattr(Asking, "conclude", raising)
    async with prober_of(upstream.target("t", "ok", timeout=0.1)) as prober:
        assert await probe(prober, 0.2) == {"ok": "internal"}
        let_go.set()


# --- remembered answers ---------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def remembering(upstream: Upstream, *checks: str, **keys: Any) -> AsyncIterator[tuple[Prober, FakeClock]]:
    clock = FakeClock()
    async with prober_of(upstream.target("t", *checks, interval=60.0, **keys), clock=clock.clock) as prober:
        yield prober, clock


async def test_a_success_is_reused_until_it_is_as_old_as_its_interval(upstream: Upstream) -> None:
    async with remembering(upstream, "ok") as (prober, clock):
        first = samples_of(await prober.probe("t", Budget.starting_now(LONG)))
        clock.advance(59.9)
        second = samples_of(await prober.probe("t", Budget.starting_now(LONG)))
        assert len(upstream.asked) == 1
        clock.advance(0.1)
        third = samples_of(await prober.probe("t", Budget.starting_now(LONG)))
        assert len(upstream.asked) == 2
    asked = ("probe_check_asked_timestamp_seconds", "ok")
    assert (first[asked], second[asked], third[asked]) == (1_800_000_000, 1_800_000_000, 1_800_000_060)
    assert second["asking_answered", "ok"] == second["probe_check_success", "ok"] == 1
    assert {name for name, *_ in first} - {name for name, *_ in second} == {
        "probe_check_duration_seconds",
        "probe_check_http_duration_seconds",
        "probe_check_http_status_code",
    }


async def test_a_failure_is_asked_again_at_the_next_probe(upstream: Upstream) -> None:
    async with remembering(upstream, "fail") as (prober, _):
        assert await probe(prober) == {"fail": "http_status"}
        upstream.status = 200
        assert await probe(prober) == {"fail": None}
        upstream.status = 500
        assert await probe(prober) == {"fail": None}
    assert len(upstream.asked) == 2


async def test_a_failure_that_must_not_be_asked_again_soon_is_remembered_for_its_own_time(upstream: Upstream) -> None:
    async with remembering(upstream, "fail", retry=10.0) as (prober, clock):
        assert await probe(prober) == {"fail": "http_status"}
        upstream.status = 200
        clock.advance(9.9)
        outcome = await prober.probe("t", Budget.starting_now(LONG))
        assert reasons(outcome) == {"fail": "http_status"}
        assert samples_of(outcome)["probe_check_asked_timestamp_seconds", "fail"] == 1_800_000_000
        assert len(upstream.asked) == 1
        clock.advance(0.1)
        assert await probe(prober) == {"fail": None}
        assert len(upstream.asked) == 2


async def test_a_question_whose_answer_nobody_waited_for_is_not_repeated_soon_not_even_with_another_secret(
    upstream: Upstream, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("one")
    clock = FakeClock()
    target = with_key(upstream, key, checks=["wait"], retry=10.0, timeout=LONG)
    async with prober_of(target, clock=clock.clock) as prober:
        request = ask(prober)
        await until(lambda: upstream.server.connections == 1)
        request.cancel()
        await until(lambda: upstream.server.connections == 0)
        upstream.gate.set()
        for secret in ("one", "another"):
            key.write_text(secret)
            outcome = await prober.probe("t", Budget.starting_now(LONG))
            assert reasons(outcome) == {"wait": "timeout"}
            assert samples_of(outcome)["probe_check_asked_timestamp_seconds", "wait"] == 1_800_000_000
        assert len(upstream.asked) == 1
        clock.advance(10)
        assert await probe(prober) == {"wait": None}
        assert len(upstream.asked) == 2


async def test_a_remembered_success_can_become_a_failure_by_time_alone(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def expired(self: Asking, report: CheckReport) -> bool:
        raise Failure(Reason.AUTH, "over")

    monkeypatch.setattr(Asking, "recall", expired)
    async with remembering(upstream, "ok") as (prober, _):
        assert [await probe(prober), await probe(prober)] == [{"ok": None}, {"ok": "auth"}]
    assert len(upstream.asked) == 1


async def test_a_remembered_success_that_no_longer_holds_is_asked_again(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Asking, "recall", lambda *_: False)
    async with remembering(upstream, "ok") as (prober, _):
        for _ in range(2):
            samples = samples_of(await prober.probe("t", Budget.starting_now(LONG)))
            assert samples["probe_check_http_status_code", "ok"] == 200
    assert len(upstream.asked) == 2


async def test_a_bug_in_recalling_is_internal_and_hurts_no_other_check(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Asking, "recall", raising)
    async with remembering(upstream, "ok", "fail") as (prober, _):
        assert await probe(prober) == {"ok": None, "fail": "http_status"}
        assert await probe(prober) == {"ok": "internal", "fail": "http_status"}
    assert [vars(record)["check"] for record in caplog.records if record.exc_info] == ["ok"]


async def test_a_check_without_interval_is_asked_every_time_and_has_no_asked_timestamp(upstream: Upstream) -> None:
    async with prober_of(upstream.target("t", "ok")) as prober:
        for _ in range(2):
            samples = samples_of(await prober.probe("t", Budget.starting_now(LONG)))
    assert len(upstream.asked) == 2
    assert ("probe_check_asked_timestamp_seconds", "ok") not in samples


# --- counters and secrets -------------------------------------------------------------------------------------------


async def test_counters_begin_at_zero_and_every_collector_has_its_histogram(upstream: Upstream) -> None:
    async with prober_of(upstream.target("t", "ok", "fail")) as prober:
        assert counted(prober, "ok") == counted(prober, "fail") == (0, 0)
        assert value(prober, "health_exporter_secret_read_failures_total", target="t") == 0
        assert value(prober, "health_exporter_probe_duration_seconds_count", collector="asking") == 0
        assert value(prober, "health_exporter_targets", collector="asking") == 1
        await probe(prober)
        assert counted(prober, "ok") == (1, 0)
        assert counted(prober, "fail") == (1, 1)
        assert value(prober, "health_exporter_probe_duration_seconds_count", collector="asking") == 1


async def test_a_check_that_is_left_out_gives_no_sample_and_counts_nothing(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Asking, "conclude", lambda *_: Conclusion(left_out={"fail"}))
    async with prober_of(upstream.target("t", "ok", "fail")) as prober:
        outcome = await prober.probe("t", Budget.starting_now(LONG))
        assert counted(prober, "fail") == (0, 0)
    assert reasons(outcome) == {"ok": None}
    assert outcome.success
    assert not [labels for labels in samples_of(outcome) if "fail" in labels]


def with_key(upstream: Upstream, path: Path, **keys: Any) -> TargetSettings:
    written = upstream.target("t", "ok").model_dump(include={"name", "collector", "checks"})
    return Asking.settings_model.model_validate(
        {**written, "url": f"{upstream.url}/t", "header_files": {"X-Key": str(path)}, **keys}
    )


async def test_a_secret_file_that_cannot_be_read_is_counted_and_logged_once_a_change(
    upstream: Upstream, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = tmp_path / "key"
    key.write_text("marker-secret")
    async with prober_of(with_key(upstream, key)) as prober:
        steps = ((True, 0, 0), (False, 1, 1), (False, 2, 1), (True, 2, 1), (False, 3, 2))
        for there, failures, lines in steps:
            if there:
                key.write_text("marker-secret")
            else:
                key.unlink(missing_ok=True)
            assert await probe(prober) == {"ok": None}
            assert value(prober, "health_exporter_secret_read_failures_total", target="t") == failures
            logged = [record for record in caplog.records if record.levelno == logging.ERROR]
            assert len(logged) == lines
    assert {request.headers["x-key"] for request in upstream.server.requests} == {"marker-secret"}
    assert vars(logged[0])["target"] == "t"
    assert str(key) in vars(logged[0])["detail"]
    assert "marker-secret" not in caplog.text


async def test_a_changed_secret_is_sent_at_once_and_ends_what_was_remembered(
    upstream: Upstream, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("one")
    async with prober_of(with_key(upstream, key, interval=60.0)) as prober:
        await probe(prober)
        await probe(prober)
        assert [request.headers["x-key"] for request in upstream.server.requests] == ["one"]
        key.write_text("another")
        await probe(prober)
        await probe(prober)
        assert [request.headers["x-key"] for request in upstream.server.requests] == ["one", "another"]


# --- the log --------------------------------------------------------------------------------------------------------


async def test_verdicts_are_logged_only_when_they_change(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    reason: Reason | None = None

    async def scripted(self: Asking, name: str, report: CheckReport) -> None:
        if name == "c" and reason is not None:
            raise Failure(reason, "words")

    monkeypatch.setattr(Asking, "ask", scripted)
    steps: list[tuple[Reason | None, list[tuple[str, str]]]] = [
        (None, [("INFO", "target passes every check")]),
        (None, []),
        (Reason.TLS, [("WARNING", "check fails")]),
        (Reason.TLS, []),
        (Reason.DNS, [("WARNING", "check fails")]),
        (None, [("INFO", "check passes again")]),
        (None, []),
    ]
    async with prober_of(upstream.target("t", "ok", "c")) as prober:
        for reason, lines in steps:
            caplog.clear()
            await probe(prober)
            assert [(record.levelname, record.message) for record in caplog.records] == lines
            for record in caplog.records:
                assert vars(record)["target"] == "t"
                assert vars(record)["collector"] == "asking"
            if reason is not None and lines:
                fields = vars(caplog.records[0])
                assert (fields["check"], fields["reason"], fields["detail"]) == ("c", str(reason), "words")
            if lines == [("INFO", "check passes again")]:
                assert vars(caplog.records[0])["was"] == "dns"


async def test_a_target_that_fails_at_its_first_probe_is_logged_check_by_check(
    upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with prober_of(upstream.target("t", "ok", "fail")) as prober:
        await probe(prober)
    assert [(record.message, vars(record)["check"]) for record in caplog.records] == [("check fails", "fail")]


async def test_a_shared_probe_is_logged_once(upstream: Upstream, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with prober_of(upstream.target("t", "wait", timeout=LONG)) as prober:
        requests = [ask(prober), ask(prober)]
        await until(lambda: joined(prober, 2))
        upstream.gate.set()
        await asyncio.gather(*requests)
    assert [record.message for record in caplog.records] == ["target passes every check"]


async def test_targets_share_one_client_and_count_apart(upstream: Upstream) -> None:
    targets = [upstream.target("a", "ok"), upstream.target("b", "fail")]
    prober = Prober(targets, contexts_of(*targets), HttpClient("tests", Clock()), ExporterMetrics())
    outcomes = await asyncio.gather(ask(prober, name="a"), ask(prober, name="b"))
    await prober.close()
    assert [outcome.success for outcome in outcomes] == [True, False]
    assert counted(prober, "ok", "a") == (1, 0)
    assert counted(prober, "fail", "b") == (1, 1)


async def test_a_target_that_has_timed_out_starts_after_the_others_next_time(upstream: Upstream) -> None:
    slow, well = upstream.target("slow", "hang", timeout=0.1), upstream.target("well", "ok")
    async with prober_of(slow, well) as prober:
        assert not prober.timed_out("slow")
        for name in ("slow", "well"):
            await prober.probe(name, Budget.starting_now(5))
        assert sorted(prober.targets, key=prober.timed_out) == ["well", "slow"]
