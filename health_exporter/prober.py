"""Probing: one target to one outcome under a deadline, however many requests ask for it.

A probe (`Flight`) is a task owned by the Prober, never by a request. Requests join it, may lengthen its deadline, and
each leaves at its own with what is known by then. When the last one has gone, the probe is cancelled.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from collectors import COLLECTORS
from collectors.base import Check, CheckReport, Collector, Conclusion
from collectors.failures import Failure, Reason, describe, reason_of
from collectors.http import Http, HttpClient
from collectors.secrets import Secret
from collectors.settings import TargetSettings
from collectors.tls import TlsContexts
from health_exporter.exporter_metrics import CHECK_FAILURES, CHECKS, SECRET_FAILURES, ExporterMetrics
from health_exporter.outcome import Outcome

log = logging.getLogger(__name__)

RESERVE = 0.05
"""Share of a budget, and seconds at the least, that are kept for joining the answer."""
JITTER = 0.05
"""A scrape that comes this many seconds early finds an answer as old as one that is on time."""
GATE_WIDTH = 4
GATE_SHARE = 0.2
GATE_HOLD = 0.05


@dataclass(frozen=True, slots=True)
class Budget:
    """What one request can take: `seconds` in all; loop times at which its checks end and at which it leaves."""

    seconds: float
    checks_until: float
    leave_at: float

    @classmethod
    def starting_now(cls, seconds: float) -> "Budget":
        """Return the budget of a request that has just arrived; must run in the event loop."""
        now = asyncio.get_running_loop().time()
        reserve = max(RESERVE * seconds, min(RESERVE, seconds / 2))
        return cls(seconds, now + seconds - reserve, now + seconds - reserve / 2)


class Gate:
    """Lets the targets of one request start a few at a time; a slow one gives its turn away.

    All at once costs 1.7 times the CPU for the same answers, so that the last one comes later, not sooner.
    """

    def __init__(self, budget: float, targets: int) -> None:
        """Divide at most a fifth of the budget among the turns of that many targets."""
        self._turns = asyncio.Semaphore(GATE_WIDTH)
        self._hold = min(GATE_HOLD, GATE_SHARE * budget * GATE_WIDTH / max(targets, 1))

    async def enter(self) -> "Turn":
        """Wait for a turn."""
        await self._turns.acquire()
        return Turn(self._turns, self._hold)


class Turn:
    """A turn at the gate: over when it is left, or after its time."""

    def __init__(self, turns: asyncio.Semaphore, hold: float) -> None:
        """Begin the turn."""
        self._turns: asyncio.Semaphore | None = turns
        self._timer = asyncio.get_running_loop().call_later(hold, self.leave)

    def leave(self) -> None:
        """Let the next one in; once."""
        self._timer.cancel()
        if self._turns is not None:
            self._turns.release()
            self._turns = None


@dataclass(slots=True, eq=False)
class Target:
    """One target and all that outlives its probes."""

    settings: TargetSettings
    tls: TlsContexts
    collector: type[Collector[Any, Any]]
    memory: Any
    secrets: tuple[Secret, ...]
    answers: dict[str, tuple[float, CheckReport]] = field(default_factory=dict)
    """The last answer of each check with an interval, and when it was asked, by the monotonic clock."""
    asked: dict[str, float] = field(default_factory=dict)
    """When each check with an interval was last really asked, Unix time."""
    secret_problems: list[str | None] = field(default_factory=list)
    secret_version: int = 0
    failing: dict[str, str] | None = None
    """The failing checks of the last probe and their reasons; None before the first."""
    flight: "Flight | None" = None

    def recall(self, check: Check, now: float) -> CheckReport | None:
        """Return the answer of a check that need not be asked again yet."""
        if check.name not in self.answers:
            return None
        asked, report = self.answers[check.name]
        keep = check.interval if report.reason is None else check.retry
        return report if now - asked + JITTER < keep else None

    def begin_asking(self, check: Check, now: float, wall: float) -> None:
        """Remember a check that is not to be asked again soon as asked, before its answer is known.

        A probe that is cancelled never learns the answer, but the server works on it all the same.
        """
        pending = CheckReport(check.name)
        pending.asked_at = self.asked[check.name] = wall
        pending.finish(Reason.TIMEOUT, "asked a moment ago, and its answer was not waited for")
        self.answers[check.name] = (now, pending)

    def forget_answers(self) -> None:
        """Forget what was answered to another secret, but not that a server may still be at work."""
        self.answers = {name: known for name, known in self.answers.items() if known[1].reason is Reason.TIMEOUT}

    def all_failing(self, reason: Reason, detail: str) -> Outcome:
        """Return the outcome of a probe that could not be made."""
        reports = [CheckReport(name) for name in self.settings.check_names()]
        for report in reports:
            report.finish(reason, detail)
        return Outcome(self.settings, tuple(reports), (), 0.0)


class Prober:
    """Probes the configured targets."""

    def __init__(
        self,
        targets: Iterable[TargetSettings],
        tls: Mapping[Any, TlsContexts],
        client: HttpClient,
        metrics: ExporterMetrics,
    ) -> None:
        """Prepare every target; nothing is probed before somebody asks."""
        self.client = client
        self._metrics = metrics
        self._flights: set[asyncio.Task[None]] = set()
        self.targets: dict[str, Target] = {}
        for settings in targets:
            collector = COLLECTORS[settings.collector]
            target = Target(settings, tls[settings.tls_config], collector, collector.new_memory(), settings.secrets())
            self.targets[settings.name] = target
        metrics.expect(target.settings for target in self.targets.values())

    async def probe(self, name: str, budget: Budget, gate: Gate | None = None) -> Outcome:
        """Return the outcome of a probe of the target: of one under way if there is one, else of a new one.

        Returns within the budget, with `timeout` for what is not known by then.
        """
        target = self.targets[name]
        turn: Turn | None = None
        try:
            if gate is not None and target.flight is None:
                async with asyncio.timeout_at(budget.checks_until):
                    turn = await gate.enter()
            return await self._join(target, budget)
        except TimeoutError:
            return target.all_failing(Reason.TIMEOUT, "the probe could not begin in time")
        except Exception:
            log.exception("probe failed by a bug of the exporter", extra={"target": name})
            return target.all_failing(Reason.INTERNAL, "the log has the exception")
        finally:
            if turn is not None:
                turn.leave()

    def timed_out(self, name: str) -> bool:
        """Return whether a check of the target had timed out when it was last probed: such a one starts last."""
        return Reason.TIMEOUT in (self.targets[name].failing or {}).values()

    async def close(self) -> None:
        """Cancel every probe under way and wait until it has let go of everything."""
        for task in self._flights:
            task.cancel()
        await asyncio.gather(*self._flights, return_exceptions=True)

    async def _join(self, target: Target, budget: Budget) -> Outcome:
        flight = target.flight
        if flight is None:
            flight = target.flight = self._launch(target, budget)
        flight.lengthen(budget.checks_until)
        flight.waiting += 1
        try:
            async with asyncio.timeout_at(budget.leave_at):
                await asyncio.shield(flight.task)
        except TimeoutError:
            outcome = flight.outcome()
            if flight.waiting == 1 and not flight.task.done():
                self._record(target, outcome)
            return outcome
        else:
            return flight.result or flight.outcome()
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                if target.flight is flight:
                    target.flight = None
                flight.task.cancel()

    def _launch(self, target: Target, budget: Budget) -> "Flight":
        self._refresh_secrets(target)
        flight = Flight(target, self.client, budget.checks_until)

        async def fly() -> None:
            try:
                await flight.run()
                flight.result = flight.outcome()
            except Exception:
                log.exception("probe failed by a bug of the exporter", extra={"target": target.settings.name})
                flight.result = target.all_failing(Reason.INTERNAL, "the log has the exception")
            finally:
                if target.flight is flight:
                    target.flight = None
            self._record(target, flight.result)

        flight.task = asyncio.create_task(fly(), name=f"probe {target.settings.name}")
        self._flights.add(flight.task)
        flight.task.add_done_callback(self._flights.discard)
        return flight

    def _record(self, target: Target, outcome: Outcome) -> None:
        """Count a probe that somebody saw to its end, and log what has changed since the last one."""
        settings, metrics = target.settings, self._metrics
        metrics.probe_duration.labels(settings.collector).observe(outcome.duration)
        for report in outcome.reports:
            metrics.counter(CHECKS, settings.collector, settings.name, report.check).inc()
            if report.reason is not None:
                metrics.counter(CHECK_FAILURES, settings.collector, settings.name, report.check).inc()
        _log_changes(target, outcome)

    def _refresh_secrets(self, target: Target) -> None:
        """Read secret files that have changed; a changed secret ends everything remembered with the old one."""
        name = target.settings.name
        problems = [secret.refresh() for secret in target.secrets]
        for problem in problems:
            if problem is not None:
                self._metrics.counter(SECRET_FAILURES, name).inc()
                if problem not in target.secret_problems:
                    log.error(
                        "secret file not readable, the last good value stays in use",
                        extra={
                            "target": name,
                            "detail": problem,
                        },
                    )
        target.secret_problems = problems
        version = sum(secret.version for secret in target.secrets)
        if version != target.secret_version:
            target.secret_version = version
            target.forget_answers()


class Flight:
    """One probe of one target."""

    def __init__(self, target: Target, client: HttpClient, until: float) -> None:
        """Prepare a probe whose checks end at loop time `until`."""
        self.task: asyncio.Task[None]
        self.result: Outcome | None = None
        self.waiting = 0
        self._target = target
        self._client = client
        self._until = until
        self._began = perf_counter()
        self._ended: float | None = None
        self._reports = {name: CheckReport(name) for name in target.settings.check_names()}
        self._limits: dict[asyncio.Timeout, float] = {}
        self._collector: Collector[Any, Any] | None = None
        self._http: Http | None = None

    async def run(self) -> None:
        """Make every check, all at once; afterwards every one has its verdict."""
        target, client = self._target, self._client
        async with client.probe(target.settings, target.tls) as self._http:
            self._collector = target.collector(target.settings, target.memory, self._http, client.clock)
            async with asyncio.TaskGroup() as group:
                for check in self._collector.checks():
                    group.create_task(self._judge(check, self._reports[check.name]))
        self._ended = perf_counter()

    def lengthen(self, until: float) -> None:
        """Give the checks that still run until loop time `until`, as far as their own timeouts allow."""
        if until <= self._until:
            return
        self._until = until
        for limit, cap in self._limits.items():
            deadline = min(cap, until)
            if not limit.expired() and deadline > (limit.when() or 0.0):
                limit.reschedule(deadline)

    def outcome(self) -> Outcome:
        """Return what is known now; a check that is not done has timed out, as far as the one who asks can tell."""
        elapsed = (self._ended or perf_counter()) - self._began
        reports = {name: _as_seen_now(report, elapsed) for name, report in self._reports.items()}
        conclusion = Conclusion()
        if self._collector is not None:
            conclusion = self._collector.conclude(reports)
        http = self._http
        return Outcome(
            self._target.settings,
            tuple(report for name, report in reports.items() if name not in conclusion.left_out),
            tuple(conclusion.samples),
            elapsed,
            http.certificate_expiry if http else None,
            http.lookup_seconds if http else None,
        )

    async def _judge(self, check: Check, report: CheckReport) -> None:
        """Give one check its verdict; never raises but when the probe is cancelled."""
        known = self._target.recall(check, self._client.clock.monotonic())
        if known is not None and (again := self._recalled(check, known)) is not None:
            self._reports[check.name] = again
            return
        asked_at, asked = self._client.clock.wall(), self._client.clock.monotonic()
        if check.retry:
            self._target.begin_asking(check, asked, asked_at)
        began = perf_counter()
        reason, detail = await self._ask(check, report)
        if not report.remembered:
            report.duration = perf_counter() - began
            self._target.asked[check.name] = asked_at
        if check.interval or check.retry:
            report.asked_at = self._target.asked.get(check.name)
            self._target.answers[check.name] = (asked, report)
        report.finish(reason, detail)

    async def _ask(self, check: Check, report: CheckReport) -> tuple[Reason | None, str]:
        loop = asyncio.get_running_loop()
        cap = loop.time() + self._target.settings.timeout
        limit = asyncio.timeout_at(min(cap, self._until))
        self._limits[limit] = cap
        try:
            async with limit:
                await check.ask(report)
        except Exception as error:  # noqa: BLE001 - folded to a reason
            if limit.expired():
                return Reason.TIMEOUT, f"not done within its time, in the phase {_last(report.phases)}"
            return self._folded(check, error)
        else:
            return None, ""
        finally:
            del self._limits[limit]

    def _recalled(self, check: Check, known: CheckReport) -> CheckReport | None:
        """Return a remembered answer as one of this probe, or None if it no longer holds."""
        report = known.recalled()
        if known.reason is None and check.recall is not None:
            try:
                if not check.recall(report):
                    return None
            except Exception as error:  # noqa: BLE001 - folded to a reason
                report.finish(*self._folded(check, error))
        return report

    def _folded(self, check: Check, error: Exception) -> tuple[Reason, str]:
        """Return what an exception says about a check; a bug is logged."""
        if isinstance(error, Failure):
            return error.reason, error.detail
        reason = reason_of(error)
        if reason is Reason.INTERNAL:
            log.error(
                "check failed by a bug of the exporter",
                extra={"target": self._target.settings.name, "check": check.name},
                exc_info=error,
            )
        return reason, describe(error)


def _last(phases: Mapping[str, float]) -> str:
    return list(phases)[-1] if phases else "none"


def _as_seen_now(report: CheckReport, elapsed: float) -> CheckReport:
    if report.done:
        return report
    seen = CheckReport(report.check)
    seen.samples = dict(report.samples)
    seen.status = report.status
    seen.duration = elapsed
    seen.finish(Reason.TIMEOUT, "not done when the request had to be answered")
    return seen


def _log_changes(target: Target, outcome: Outcome) -> None:
    before, now = target.failing, outcome.failing
    target.failing = now
    context = {"target": outcome.settings.name, "collector": outcome.settings.collector}
    if before is None and not now:
        log.info("target passes every check", extra=context)
    for report in outcome.reports:
        check = {**context, "check": report.check}
        was = (before or {}).get(report.check)
        if report.reason is not None and was != report.reason:
            log.warning("check fails", extra={**check, "reason": str(report.reason), "detail": report.detail})
        elif report.reason is None and was is not None:
            log.info("check passes again", extra={**check, "was": was})
