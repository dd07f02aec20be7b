"""The demo: every family that can be shown is, what is said to be unwell is, and things change."""

import asyncio
import contextlib

import pytest

from health_exporter import demo, exposition
from health_exporter.outcome import Outcome
from health_exporter.prober import Budget
from health_exporter.reference import TABLES
from tests.support import FakeClock, prober_of, read, reasons, samples_of

NOT_SHOWN = {
    "bundle_last_restart_timestamp_seconds": "no restart in the first seconds; tests/test_bundles.py",
}


async def test_the_demo_shows_every_family_within_two_scrapes() -> None:
    async with demo.simulated() as (targets, _), prober_of(*targets) as prober:
        found: set[str] = set()
        for _ in range(2):
            budget = Budget.starting_now(8)
            outcomes = await asyncio.gather(*(prober.probe(target.name, budget) for target in targets))
            blocks = [exposition.encode_target(outcome, 8, static_labels=True) for outcome in outcomes]
            found |= {name for name, _ in read(exposition.join(blocks, exposition.PLAIN).decode())}
        shown = {metric.name for title, table in TABLES.items() if title != "The exporter" for metric in table}
    assert shown - found == set(NOT_SHOWN)


async def test_what_is_unwell_for_good_is_seen_and_the_rest_is_well() -> None:
    async with demo.simulated() as (targets, _), prober_of(*targets) as prober:
        budget = Budget.starting_now(8)
        outcomes = {target.name: await prober.probe(target.name, budget) for target in targets}
    failing = {name: outcome.failing for name, outcome in outcomes.items() if outcome.failing}
    assert failing == {"pryv-core-b": {"series": "timeout"}}
    assert {outcome.settings.collector for outcome in outcomes.values()} == set(TABLES) - {
        "Every target",
        "The exporter",
    }


async def test_every_act_can_be_seen_and_ends() -> None:
    stage = demo.Stage()
    async with contextlib.AsyncExitStack() as stack:
        await stage.enter(stack)
        targets = stage.targets()
        seen = []

        async def probe_all() -> dict[str, Outcome]:
            async with prober_of(*targets) as prober:
                budget = Budget.starting_now(8)
                return {target.name: await prober.probe(target.name, budget) for target in targets}

        await probe_all()  # from now on the simulated servers have their caches warm
        for _, begin, end in stage.acts():
            begin()
            seen.append({name: reasons(outcome) for name, outcome in (await probe_all()).items()})
            end()
        after = (await probe_all())["pryv-single"]
    assert seen[0]["pryv-single"]["storage"] == "http_status"
    assert seen[0]["pryv-single"]["registration"] is None
    assert seen[1]["media"] == {"health": None, "detailed": None, "consistency": None, "sftpgo": None}
    assert seen[3]["pryv-core-a"]["dns"] == "dns"
    assert after.success


async def test_the_acts_are_played_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "ACT_SECONDS", 0.0)
    stage = demo.Stage()
    states: list[str] = []
    original = type(stage.single.faults).__setattr__

    def note(faults: object, name: str, value: object) -> None:
        original(faults, name, value)  # type: ignore[arg-type]
        states.append(f"{name}={value}")

    monkeypatch.setattr(type(stage.single.faults), "__setattr__", note)
    play = asyncio.create_task(stage.play())
    async with asyncio.timeout(10):
        while len(states) < 4:  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0)
    play.cancel()
    await asyncio.gather(play, return_exceptions=True)
    assert states[:4] == ["postgres=refused", "postgres=up"] * 2


async def test_a_dead_alert_loop_shows_as_a_growing_lag_while_its_act_lasts() -> None:
    stage = demo.Stage()
    now = stage.cron.clock()
    stage.cron.clock = lambda: now
    begin, end = stage.acts()[2][1:]
    async with contextlib.AsyncExitStack() as stack:
        await stage.enter(stack)
        cron = next(target for target in stage.targets() if target.name == "cron")

        async def lag() -> float:
            clock = FakeClock(now)
            async with prober_of(cron, clock=clock.clock) as prober:
                outcome = await prober.probe("cron", Budget.starting_now(8))
            return samples_of(outcome)["healthchecks_alerting_lag_seconds",]

        assert await lag() == 0
        begin()
        now += 90
        assert 30 < await lag() < 90
        end()
        now += 30
        assert await lag() == 0
