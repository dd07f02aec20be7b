"""The bundles collector against the simulated host, against measured answers, and against whatever a server may say."""

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from collectors.base import NAMED_THINGS
from collectors.bundles import STATES, Bundles, Settings
from collectors.http import LARGE_REPLY
from health_exporter.config import ConfigError, load
from health_exporter.exposition import PLAIN, encode_target, join
from health_exporter.outcome import Outcome
from health_exporter.prober import Budget, Prober
from health_exporter.simulators.bundles import Bundle, BundleHost, BundleHostFaults, Mode
from health_exporter.simulators.wire import Answer, Close, Hang, Reply, Request, Server
from tests.support import FakeClock, probe_once, prober_of, read, reasons, samples_of, settings
from tests.test_exposition import FLEETING, GOLDEN

ANSWERS: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "fixtures" / "bundles_answers.json").read_text(encoding="utf-8")
)["answers"]
WELL: dict[str, str | None] = {"health": None, "bundles": None}
PUBLIC: dict[str, str | None] = {"health": None}
IN_PROCESS = ["home", "usage", "instructions", "skills", "compose", "nb"]
SHORT = 0.25
"""The timeout of probes in which something never answers."""

Published = dict[tuple[str, ...], float]


def on(url: str, **keys: Any) -> Any:
    return settings("bundles", url=url, **keys)


async def ask(prober: Prober, seconds: float = 5.0) -> Outcome:
    return await prober.probe("t", Budget.starting_now(seconds))


def of_bundles(outcome: Outcome) -> Published:
    """Return the samples of the collector's own metrics; of states only those that are not 0."""
    of_states = ("bundle_instances", "bundle_host_bundles")
    return {
        key: number
        for key, number in samples_of(outcome).items()
        if key[0].startswith("bundle_") and (number or key[0] not in of_states)
    }


def named(published: Published, *names: str) -> Published:
    return {key: number for key, number in published.items() if key[0] in names}


@contextlib.asynccontextmanager
async def watched(
    bundles: Sequence[Bundle], mode: Mode = "recon", **keys: Any
) -> AsyncIterator[tuple[BundleHost, Prober, FakeClock]]:
    """Give a simulated host, a prober of it and the one clock of both."""
    clock = FakeClock()
    async with (
        BundleHost(bundles, mode, clock.clock.monotonic) as host,
        prober_of(on(host.url, **keys), clock=clock.clock) as prober,
    ):
        yield host, prober, clock


@contextlib.asynccontextmanager
async def replying(handler: Callable[[Request], Reply | Awaitable[Reply]]) -> AsyncIterator[str]:
    async with Server(handler) as server:
        yield f"http://127.0.0.1:{server.port}"


def as_json(value: Any, status: int = 200) -> Answer:
    return Answer(status, (("Content-Type", "application/json"),), json.dumps(value).encode())


def serving(health: Any, bundles: Any = None) -> Callable[[Request], Reply]:
    """Return the handler of a server that says this; None is a 404, a `Reply` is sent as it is."""

    def handler(request: Request) -> Reply:
        value = {"/v1/health": health, "/v1/bundles/health": bundles}[request.path]
        if value is None:
            return as_json({"error": "not_found", "message": "Not found"}, 404)
        return as_json(value) if isinstance(value, dict | list) else value

    return handler


async def published_by(health: Any, bundles: Any = None, **keys: Any) -> tuple[dict[str, str | None], Published]:
    async with replying(serving(health, bundles)) as url:
        outcome = await probe_once(on(url, **keys))
    return reasons(outcome), of_bundles(outcome)


# --- measured and documented answers --------------------------------------------------------------------------------


def replayed(name: str) -> Answer:
    answer = ANSWERS[name]
    return Answer(answer["status"], tuple((key, value) for key, value in answer["headers"]), answer["body"].encode())


PAIRS: dict[str, tuple[str, str, dict[str, str | None]]] = {
    "newest release": ("new_health_all_healthy", "new_bundles_health_404", PUBLIC),
    "newest release, no workspace": ("new_health_no_workspaces_stamped", "new_bundles_health_404", PUBLIC),
    "workspace made after boot": ("new_health_workspace_created_after_boot", "new_bundles_health_404", PUBLIC),
    "call put back": ("new_health_all_healthy", "rec_bundles_health_t1", WELL),
    "call put back, later": ("new_health_all_healthy", "rec_bundles_health_t2", WELL),
    "call put back, after a crash": ("new_health_all_healthy", "rec_bundles_health_just_after_crash", WELL),
    "with authentication": ("auth_oidc_health", "auth_oidc_bundles_health_recon", WELL),
    "remote bundle down": ("auth_oidc_health", "auth_remote_killed_immediately", WELL),
    "before a bundle is removed": ("new_health_all_healthy", "rec_before_uninstall", WELL),
    "after a bundle was removed": ("new_health_all_healthy", "rec_just_after_uninstall", WELL),
    "as documented": ("documented_health", "documented_bundles_health", WELL),
    "a slash too many": ("new_health_slash", "new_health_slash", {"health": "not_found", "bundles": "not_found"}),
    "another method": ("new_health_POST", "new_bundles_health_404", {"health": "not_found", "bundles": "not_found"}),
    "refused, with an empty body": (
        "auth_oidc_bootstrap_401",
        "auth_oidc_bootstrap_401",
        {"health": "auth", "bundles": "auth"},
    ),
    "paths swapped": ("rec_bundles_health_t1", "new_health_all_healthy", {"health": "schema", "bundles": None}),
}


@pytest.mark.parametrize("name", PAIRS)
async def test_every_measured_answer_gives_its_verdict(name: str) -> None:
    health, bundles, verdict = PAIRS[name]
    seen, published = await published_by(replayed(health), replayed(bundles))
    assert seen == verdict
    assert published.get(("bundle_endpoint_offered", "bundles")) == (
        1 if verdict.get("bundles", "") is None else 0 if verdict == PUBLIC else None
    )


def test_every_fixture_is_used() -> None:
    assert {name for row in PAIRS.values() for name in row[:2]} == set(ANSWERS)


async def test_the_newest_release_is_read_without_the_documented_call() -> None:
    _, published = await published_by(replayed("new_health_all_healthy"), ignore=IN_PROCESS, expect=["flaky", "gone"])
    names = {"crashloop": 1, "steady": 2, "doomed": 1, "flaky": 1, "slowboot": 1}
    expected: Published = {
        ("bundle_host_info", "0.0.0-dev", ""): 1,
        ("bundle_host_bundles", "healthy"): 6,
        ("bundle_host_entries_skipped",): 0,
        ("bundle_endpoint_offered", "bundles"): 0,
        ("bundle_expected_missing", "flaky"): 0,
        ("bundle_expected_missing", "gone"): 1,
        **{("bundle_up", name): 1 for name in names},
        **{("bundle_instances", name, "healthy"): count for name, count in names.items()},
    }
    assert published == expected


async def test_the_measured_list_is_read_with_counts_and_states() -> None:
    health, bundles = replayed("new_health_all_healthy"), replayed("rec_bundles_health_t1")
    _, published = await published_by(health, bundles, ignore=[*IN_PROCESS, "slowboot"])
    expected: Published = {
        ("bundle_host_info", "0.0.0-dev", ""): 1,
        ("bundle_host_bundles", "healthy"): 4,
        ("bundle_host_bundles", "restarting"): 1,
        ("bundle_host_entries_skipped",): 0,
        ("bundle_endpoint_offered", "bundles"): 1,
        **{("bundle_up", name): up for name, up in {"flaky": 1, "crashloop": 1, "doomed": 0, "steady": 1}.items()},
        ("bundle_instances", "flaky", "healthy"): 1,
        ("bundle_instances", "crashloop", "healthy"): 1,
        ("bundle_instances", "doomed", "restarting"): 1,
        ("bundle_instances", "steady", "healthy"): 2,
        **{("bundle_restarts_total", name): 0 for name in ("flaky", "crashloop", "doomed", "steady")},
        **{("bundle_consecutive_restarts", name): 1 for name in ("flaky", "crashloop", "doomed")},
        ("bundle_consecutive_restarts", "steady"): 0,
    }
    assert published == expected


async def test_the_documented_example_is_read_in_seconds() -> None:
    clock = FakeClock()
    handler = serving(replayed("documented_health"), replayed("documented_bundles_health"))
    async with (
        replying(handler) as url,
        prober_of(on(url, uptime_unit="seconds"), clock=clock.clock) as prober,
    ):
        published = of_bundles(await ask(prober))
    assert named(published, "bundle_start_time_seconds", "bundle_host_start_time_seconds") == {
        ("bundle_host_start_time_seconds",): pytest.approx(clock.now - 3600, abs=1),
        ("bundle_start_time_seconds", "bash"): pytest.approx(clock.now - 3600, abs=1),
        ("bundle_start_time_seconds", "weather"): pytest.approx(clock.now - 3580, abs=1),
    }
    assert named(published, "bundle_up", "bundle_consecutive_restarts") == {
        ("bundle_up", "bash"): 1,
        ("bundle_up", "weather"): 1,
        ("bundle_up", "postgres"): 0,
        ("bundle_consecutive_restarts", "bash"): 0,
        ("bundle_consecutive_restarts", "weather"): 0,
        ("bundle_consecutive_restarts", "postgres"): 3,
    }
    assert published["bundle_host_info", "", ""] == 1


# --- verdicts -------------------------------------------------------------------------------------------------------


FRONTS: dict[str, tuple[dict[str, Any], dict[str, str | None]]] = {
    "well": ({}, WELL),
    "auth wall": ({"front": "auth_wall"}, {"health": "auth", "bundles": "auth"}),
    "login page": ({"front": "login_page"}, {"health": "wrong_target", "bundles": "wrong_target"}),
    "redirect": ({"front": "redirect"}, {"health": "redirect", "bundles": "redirect"}),
    "rate limit": ({"front": "rate_limit"}, {"health": "http_status", "bundles": "http_status"}),
    "error": ({"front": "error"}, {"health": "http_status", "bundles": "http_status"}),
    "garbage": ({"front": "garbage"}, {"health": "decode", "bundles": "decode"}),
    "hang": ({"front": "hang"}, {"health": "timeout", "bundles": "timeout"}),
    "slow, but in time": ({"slow_seconds": 0.01}, WELL),
    "slow": ({"slow_seconds": 30.0}, {"health": "timeout", "bundles": "timeout"}),
    "only the list hangs": ({"front": "hang", "only": "bundles"}, {"health": None, "bundles": "timeout"}),
    "only the list fails": ({"front": "error", "only": "bundles"}, {"health": None, "bundles": "http_status"}),
    "only the list is behind a wall": ({"front": "auth_wall", "only": "bundles"}, {"health": None, "bundles": "auth"}),
    "only the summary fails": ({"front": "error", "only": "health"}, {"health": "http_status", "bundles": None}),
    "an object instead of an array": ({"wrapped": True}, WELL),
}


@pytest.mark.parametrize("name", FRONTS)
async def test_what_stands_before_a_host_has_its_reason(name: str) -> None:
    faults, verdict = FRONTS[name]
    async with BundleHost(mode="recon") as host:
        for key, value in faults.items():
            setattr(host.faults, key, value)
        patience = SHORT if "timeout" in verdict.values() else 5
        outcome = await probe_once(on(host.url, timeout=patience))
    assert reasons(outcome) == verdict
    states_known = None in verdict.values()
    assert bool(named(of_bundles(outcome), "bundle_up")) == states_known


async def test_a_host_that_is_gone_refuses() -> None:
    async with BundleHost() as host:
        await host.server.refuse()
        assert reasons(await probe_once(on(host.url))) == {"health": "connect", "bundles": "connect"}


@pytest.mark.parametrize("body", ["own", "page", "empty"])
async def test_a_host_that_does_not_offer_the_list_is_well(body: Any) -> None:
    async with BundleHost() as host:
        host.faults.not_found = body
        outcome = await probe_once(on(host.url))
    assert reasons(outcome) == PUBLIC
    assert outcome.success
    assert of_bundles(outcome)["bundle_endpoint_offered", "bundles"] == 0
    assert not [key for key in samples_of(outcome) if "bundles" in key[1:] and key[0].startswith("probe_check")]


async def test_a_404_counts_where_no_bundle_host_answers() -> None:
    for health in (None, {"status": "ok"}, Answer(500), {"bundles": "none"}):
        seen, published = await published_by(health)
        assert seen["bundles"] == "not_found"
        assert not published


JSON_OF_OTHERS: list[Any] = [{}, {"status": "ok"}, [1, 2], ["a"], [None], [[]], {"error": "x"}, {"error": {"id": 1}}]


@pytest.mark.parametrize("document", JSON_OF_OTHERS)
async def test_json_without_the_marks_is_another_target(document: Any) -> None:
    seen, published = await published_by(document, document)
    assert seen == {"health": "wrong_target", "bundles": "wrong_target"}
    assert not published


@pytest.mark.parametrize("bundles", [None, 5, "x", {}, True])
async def test_bundles_that_are_no_list_have_another_shape(bundles: Any) -> None:
    seen, published = await published_by({"status": "ok", "bundles": bundles}, {"bundles": bundles})
    assert seen == {"health": "schema", "bundles": "schema"}
    assert not published


async def test_an_error_of_the_host_with_200_has_another_shape() -> None:
    error = {"error": "not_ready", "message": "Not ready"}
    assert (await published_by(error, error))[0] == {"health": "schema", "bundles": "schema"}


@pytest.mark.parametrize("key", ["version", "buildSha", "uptime"])
async def test_what_was_read_stays_when_the_rest_of_the_summary_has_another_shape(key: str) -> None:
    seen, published = await published_by({"bundles": [{"name": "a", "state": "healthy"}], key: ["?"]})
    assert seen == {"health": "schema"}
    assert published["bundle_up", "a"] == 1


async def test_no_bundle_is_no_failure() -> None:
    seen, published = await published_by({"bundles": []}, [], expect=["a"])
    assert seen == WELL
    assert published == {
        ("bundle_host_info", "", ""): 1,
        ("bundle_host_entries_skipped",): 0,
        ("bundle_endpoint_offered", "bundles"): 1,
        ("bundle_expected_missing", "a"): 1,
    }


async def test_dead_and_missing_bundles_are_data() -> None:
    bundles = [Bundle("a", "doomed", 10), Bundle("b", "remote_down_boot"), Bundle("c", "stopped")]
    async with watched(bundles, "documented", expect=["a", "z"]) as (_, prober, clock):
        clock.advance(400)
        outcome = await ask(prober)
    assert outcome.success
    assert named(of_bundles(outcome), "bundle_up", "bundle_expected_missing") == {
        ("bundle_up", "a"): 0,
        ("bundle_up", "b"): 0,
        ("bundle_up", "c"): 0,
        ("bundle_expected_missing", "a"): 0,
        ("bundle_expected_missing", "z"): 1,
    }


# --- states ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", [*STATES, "reauth_required", "Healthy", "", " running"])
async def test_every_state_is_one_of_nine_and_all_nine_are_there(word: str) -> None:
    entries = [{"name": "a", "state": word}]
    async with replying(serving({"bundles": entries})) as url:
        samples = samples_of(await probe_once(on(url)))
    state = word if word in STATES else "unknown"
    assert {key[2]: number for key, number in samples.items() if key[0] == "bundle_instances"} == {
        known: float(known == state) for known in STATES
    }
    assert {key[1]: number for key, number in samples.items() if key[0] == "bundle_host_bundles"} == {
        known: float(known == state) for known in STATES
    }
    assert samples["bundle_up", "a"] == (state in {"running", "healthy"})


async def test_states_come_from_the_list_if_there_is_one_else_from_the_summary() -> None:
    summary = {"bundles": [{"name": "a", "state": "healthy"}]}
    listed = [{"name": "a", "state": "dead"}]
    for bundles, up in ((listed, 0), (None, 1), (Answer(500), 1), ({"bundles": 5}, 1), (Answer(200, (), b"{"), 1)):
        _, published = await published_by(summary, bundles)
        assert published["bundle_up", "a"] == up
    assert (await published_by(Answer(500), listed))[1]["bundle_up", "a"] == 0


async def test_a_bundle_is_up_if_every_instance_is() -> None:
    entries = [{"name": "a", "state": "healthy"}, {"name": "b", "state": "running"}, {"name": "a", "state": "dead"}]
    _, published = await published_by({"bundles": entries})
    assert named(published, "bundle_up", "bundle_instances") == {
        ("bundle_up", "a"): 0,
        ("bundle_up", "b"): 1,
        ("bundle_instances", "a", "healthy"): 1,
        ("bundle_instances", "a", "dead"): 1,
        ("bundle_instances", "b", "running"): 1,
    }


async def test_unknown_words_are_logged_once_a_change(caplog: pytest.LogCaptureFixture) -> None:
    def complaints() -> list[str]:
        found = [record.states for record in caplog.records if hasattr(record, "states")]
        caplog.clear()
        return found

    caplog.set_level(logging.WARNING, "collectors.bundles")
    async with watched([Bundle("a"), Bundle("b")]) as (host, prober, _):
        said: list[tuple[dict[str, str], list[str]]] = [
            ({}, []),
            ({"a": "pending\nauth"}, ["pending\ufffdauth"]),
            ({"a": "pending\nauth"}, []),
            ({"b": "pending\nauth"}, []),
            ({"a": "pending\nauth", "b": "odd"}, ["odd, pending\ufffdauth"]),
            ({}, []),
            ({"a": "odd"}, ["odd"]),
        ]
        for states, logged in said:
            host.faults.states = states
            await ask(prober)
            assert complaints() == logged


# --- entries --------------------------------------------------------------------------------------------------------

BAD_ENTRIES: list[Any] = [None, 5, "a", [], {}, {"state": "healthy"}, {"name": 5}, {"name": ""}, {"name": None}]


async def test_an_entry_that_cannot_be_read_is_counted_and_costs_the_others_nothing() -> None:
    async with BundleHost([Bundle("a")], "recon") as host:
        host.faults.entries = BAD_ENTRIES
        outcome = await probe_once(on(host.url))
    assert reasons(outcome) == WELL
    published = of_bundles(outcome)
    assert published["bundle_host_entries_skipped",] == len(BAD_ENTRIES)
    assert named(published, "bundle_up", "bundle_host_bundles") == {
        ("bundle_up", "a"): 1,
        ("bundle_host_bundles", "healthy"): 1,
    }


WELL_FORMED: list[dict[str, Any]] = [{"state": None}, {"restartCount": 2.0}, {"more": {"of": "it"}}]


@pytest.mark.parametrize(
    ("wrong", "kept"),
    [
        ({"state": 5}, {"bundle_consecutive_restarts"}),
        ({"state": None}, {"bundle_consecutive_restarts"}),
        ({"uptime": "long"}, {"bundle_consecutive_restarts"}),
        ({"uptime": -1}, {"bundle_consecutive_restarts"}),
        ({"uptime": True}, {"bundle_consecutive_restarts"}),
        ({"uptime": 10**400}, {"bundle_consecutive_restarts"}),
        ({"uptime": 1e300}, {"bundle_consecutive_restarts"}),
        ({"restartCount": "many"}, set()),
        ({"restartCount": -1}, set()),
        ({"restartCount": [2]}, set()),
        ({"restartCount": 2.0}, {"bundle_consecutive_restarts"}),
        ({"more": {"of": "it"}}, {"bundle_consecutive_restarts"}),
    ],
)
async def test_a_field_of_a_wrong_type_costs_its_entry_nothing_else(wrong: dict[str, Any], kept: set[str]) -> None:
    entry = {"name": "a", "state": "healthy", "uptime": 5, "restartCount": 2} | wrong
    seen, published = await published_by({"bundles": []}, [entry])
    assert seen == WELL
    assert published["bundle_host_entries_skipped",] == (wrong not in WELL_FORMED)
    assert published["bundle_up", "a"] == ("state" not in wrong)
    assert {key[0] for key in named(published, "bundle_consecutive_restarts")} == kept


async def test_names_that_become_one_by_being_made_safe_are_instances_of_one_bundle() -> None:
    long = "x" * 300
    entries = [{"name": name, "state": "healthy"} for name in ("a\x00", "a\x01", "\ud800", long)]
    _, published = await published_by({"bundles": entries}, entries, expect=["a\ufffd", long], ignore=["\ufffd"])
    assert published["bundle_instances", "a\ufffd", "healthy"] == 2
    assert {number for key, number in published.items() if key[0] == "bundle_expected_missing"} == {0}
    names = {key[1] for key in published if key[0] == "bundle_up"}
    assert names == {key[1] for key in published if key[0] == "bundle_expected_missing"}


async def test_ignored_bundles_are_nowhere() -> None:
    async with watched([Bundle("a"), Bundle("home"), Bundle("home")], ignore=["home"]) as (_, prober, clock):
        await ask(prober)
        clock.advance(15)
        outcome = await ask(prober)
    assert not [key for key in samples_of(outcome) if "home" in key]
    assert of_bundles(outcome)["bundle_host_bundles", "healthy"] == 1


@pytest.mark.parametrize("mode", ["public", "recon"])
async def test_more_bundles_than_are_named_fail_the_check_and_the_first_stay(mode: Mode) -> None:
    many = [Bundle(f"b{number}") for number in range(NAMED_THINGS + 1)]
    async with BundleHost([*many, Bundle("last")], mode) as host:
        outcome = await probe_once(on(host.url, expect=["last", "gone"]))
        within = await probe_once(on(host.url, ignore=["b0", "b1"]))
    assert set(reasons(outcome).values()) == {"too_large"}
    published = of_bundles(outcome)
    assert len(named(published, "bundle_up")) == NAMED_THINGS
    assert published["bundle_host_bundles", "healthy"] == NAMED_THINGS + 2
    assert published["bundle_expected_missing", "last"] == 0
    assert published["bundle_expected_missing", "gone"] == 1
    assert set(reasons(within).values()) == {None}
    assert len(named(of_bundles(within), "bundle_up")) == NAMED_THINGS


async def test_a_large_list_is_read_in_a_thread_all_the_same() -> None:
    number = LARGE_REPLY // len('{"name":"a"}')
    async with BundleHost([Bundle("a")] * number, "recon") as host:
        outcome = await probe_once(on(host.url))
    assert of_bundles(outcome)["bundle_instances", "a", "healthy"] == number


# --- uptimes --------------------------------------------------------------------------------------------------------

TWO = [Bundle("a"), Bundle("b", "crash_once", 100)]


@pytest.mark.parametrize("mode", ["recon", "documented", "docs_variant"])
async def test_no_start_time_before_two_looks_have_told_the_unit(mode: Mode) -> None:
    async with watched(TWO, mode) as (_, prober, clock):
        booted = clock.now
        clock.advance(60)
        first = of_bundles(await ask(prober))
        clock.advance(15)
        second = of_bundles(await ask(prober))
    assert not named(first, "bundle_start_time_seconds")
    assert named(first, "bundle_restarts_total") == {("bundle_restarts_total", name): 0 for name in "ab"}
    assert named(second, "bundle_start_time_seconds") == {
        ("bundle_start_time_seconds", name): pytest.approx(booted, abs=1.5) for name in "ab"
    }


@pytest.mark.parametrize(("mode", "unit"), [("recon", "milliseconds"), ("documented", "seconds")])
async def test_a_unit_that_is_set_is_used_at_once(mode: Mode, unit: str) -> None:
    async with watched(TWO, mode, uptime_unit=unit) as (_, prober, clock):
        booted = clock.now
        clock.advance(60)
        published = of_bundles(await ask(prober))
    assert published["bundle_start_time_seconds", "a"] == pytest.approx(booted, abs=1.5)


async def test_the_unit_is_found_from_a_bundle_that_is_down_or_ignored() -> None:
    bundles = [Bundle("doomed", "doomed", 1), Bundle("home")]
    for ignored in ("home", "doomed"):
        async with watched(bundles, ignore=[ignored]) as (_, prober, clock):
            clock.advance(200)
            await ask(prober)
            clock.advance(15)
            published = of_bundles(await ask(prober))
        assert len(named(published, "bundle_start_time_seconds")) == (ignored == "doomed")


async def test_start_times_stand_still_and_are_there_only_while_up() -> None:
    async with watched(TWO, "documented", uptime_unit="seconds") as (_, prober, clock):
        clock.advance(0.6)
        seen = []
        for _ in range(30):
            published = of_bundles(await ask(prober))
            seen.append((published["bundle_start_time_seconds", "a"], published["bundle_host_start_time_seconds",]))
            up = bool(published["bundle_up", "b"])
            assert (("bundle_start_time_seconds", "b") in published) == up
            clock.advance(7.3)
    assert len(set(seen)) == 1


async def test_the_start_time_is_that_of_the_instance_that_started_last() -> None:
    bundles = [Bundle("a"), Bundle("a", "crash_once", 100), Bundle("b")]
    async with watched(bundles, uptime_unit="milliseconds") as (_, prober, clock):
        booted = clock.now
        clock.advance(200)
        published = of_bundles(await ask(prober))
    assert published["bundle_start_time_seconds", "a"] == pytest.approx(booted + 121, abs=0.1)
    assert published["bundle_start_time_seconds", "b"] == pytest.approx(booted, abs=0.1)


async def test_a_bundle_with_an_instance_of_unknown_start_has_no_start_time() -> None:
    entries = [{"name": "a", "state": "healthy", "uptime": 5000}, {"name": "a", "state": "healthy", "uptime": None}]
    _, published = await published_by({"bundles": []}, entries, uptime_unit="milliseconds")
    assert not named(published, "bundle_start_time_seconds")


# --- restarts -------------------------------------------------------------------------------------------------------


async def test_an_hour_of_a_bundle_that_crashes_in_a_loop_is_counted_exactly() -> None:
    bundles = [
        Bundle("bash"),
        Bundle("loop", "crash_loop"),
        Bundle("doomed", "doomed", 40),
        Bundle("loop", "slow_crash"),
    ]
    async with watched(bundles) as (host, prober, clock):
        clock.advance(3.2)
        totals = []
        for _ in range(241):
            published = of_bundles(await ask(prober))
            totals.append(published["bundle_restarts_total", "loop"])
            for name in ("bash", "loop", "doomed"):
                assert published["bundle_restarts_total", name] == host.true_restarts(name)
            clock.advance(15)
    assert totals[-1] == 41
    assert totals == sorted(totals)
    assert published["bundle_last_restart_timestamp_seconds", "loop"] == pytest.approx(clock.now, abs=330)
    assert ("bundle_last_restart_timestamp_seconds", "bash") not in published


@pytest.mark.parametrize("mode", ["recon", "documented", "docs_variant"])
@pytest.mark.parametrize("interval", [5, 15, 30])
async def test_a_crash_loop_alone_on_its_host_is_counted_in_every_shape(mode: Mode, interval: float) -> None:
    async with watched([Bundle("loop", "crash_loop")], mode) as (host, prober, clock):
        clock.advance(7)
        for _ in range(int(900 // interval)):
            published = of_bundles(await ask(prober))
            assert published["bundle_restarts_total", "loop"] == host.true_restarts("loop")
            clock.advance(interval)
    assert published["bundle_restarts_total", "loop"] == 10


async def test_the_count_as_reported_is_that_of_the_instance_that_has_most() -> None:
    bundles = [Bundle("a"), Bundle("a", "doomed", 1)]
    async with watched(bundles) as (_, prober, clock):
        clock.advance(100)
        published = of_bundles(await ask(prober))
        clock.advance(100)
        cooling = of_bundles(await ask(prober))
    assert published["bundle_consecutive_restarts", "a"] == 3
    assert cooling["bundle_consecutive_restarts", "a"] == 0
    assert cooling["bundle_instances", "a", "cooldown"] == 1


async def test_a_restart_by_a_tool_call_is_seen_by_the_start_time() -> None:
    async with watched(TWO) as (host, prober, clock):
        for _ in range(3):
            clock.advance(15)
            await ask(prober)
        host.restart_inline("a")
        clock.advance(15)
        published = of_bundles(await ask(prober))
    assert published["bundle_restarts_total", "a"] == host.true_restarts("a") == 1
    assert published["bundle_last_restart_timestamp_seconds", "a"] == pytest.approx(clock.now, abs=1)


@pytest.mark.parametrize("mode", ["recon", "documented", "docs_variant"])
async def test_a_restart_of_the_whole_host_counts_nothing(mode: Mode) -> None:
    async with watched([Bundle("a"), Bundle("b", "crash_once", 500), Bundle("a")], mode) as (host, prober, clock):
        for _ in range(4):
            clock.advance(15)
            await ask(prober)
        host.restart()
        clock.advance(10)
        published = of_bundles(await ask(prober))
    assert named(published, "bundle_restarts_total") == {("bundle_restarts_total", name): 0 for name in "ab"}
    assert not named(published, "bundle_last_restart_timestamp_seconds")
    assert {number > clock.now - 12 for key, number in published.items() if key[0] == "bundle_start_time_seconds"} == {
        True
    }


async def test_restarts_are_counted_over_gaps_and_changing_shapes() -> None:
    async with watched([Bundle("loop", "crash_loop"), Bundle("a")]) as (host, prober, clock):
        shapes: list[dict[str, Any]] = [
            {},
            {"front": "error"},
            {"wrapped": True},
            {"front": "hang", "only": "bundles"},
            {"front": "error", "only": "health"},
            {"left_out": frozenset({"uptime"})},
            {"front": "garbage", "only": "bundles"},
            {"left_out": frozenset({"restartCount"})},
        ]
        clock.advance(4)
        for number in range(30):
            for key, value in ({"front": "none", "only": "both", "wrapped": False, "left_out": frozenset()}).items():
                setattr(host.faults, key, value)
            for key, value in shapes[number % len(shapes)].items():
                setattr(host.faults, key, value)
            published = of_bundles(await ask(prober, SHORT))
            assert published.get(("bundle_restarts_total", "loop"), 0) <= host.true_restarts("loop")
            clock.advance(15)
        for key, value in ({"front": "none", "only": "both", "wrapped": False, "left_out": frozenset()}).items():
            setattr(host.faults, key, value)
        published = of_bundles(await ask(prober))
    assert 4 <= published["bundle_restarts_total", "loop"] <= host.true_restarts("loop") == 5


@pytest.mark.parametrize(
    ("left_out", "restarts", "consecutive"),
    [
        (set(), True, True),
        ({"uptime"}, True, True),
        ({"restartCount"}, True, False),
        ({"uptime", "restartCount"}, False, False),
    ],
)
async def test_restarts_are_absent_while_the_host_gives_neither_count_nor_uptime(
    left_out: set[str], restarts: bool, consecutive: bool
) -> None:
    async with BundleHost([Bundle("a")], "recon") as host:
        host.faults.left_out = frozenset(left_out)
        published = of_bundles(await probe_once(on(host.url)))
    assert (("bundle_restarts_total", "a") in published) == restarts
    assert (("bundle_consecutive_restarts", "a") in published) == consecutive


async def test_a_public_release_gives_no_restarts() -> None:
    async with watched([Bundle("loop", "crash_loop")], "public") as (_, prober, clock):
        for _ in range(20):
            published = of_bundles(await ask(prober))
            clock.advance(15)
    assert {key[0] for key in published} == {
        "bundle_host_info",
        "bundle_host_bundles",
        "bundle_host_entries_skipped",
        "bundle_endpoint_offered",
        "bundle_up",
        "bundle_instances",
    }


async def test_a_probe_counts_once_however_often_it_is_read_and_whenever_the_summary_comes() -> None:
    """The summary hangs: restarts are counted when both checks are over, and are not lost."""
    async with watched([Bundle("loop", "crash_loop"), Bundle("a")], timeout=SHORT) as (host, prober, clock):
        await ask(prober)
        host.faults.front, host.faults.only = "hang", "health"
        clock.advance(40)
        outcomes = await asyncio.gather(ask(prober), ask(prober), ask(prober, SHORT / 4))
        again = await ask(prober)
    for outcome in (*outcomes[:2], again):
        assert reasons(outcome) == {"health": "timeout", "bundles": None}
        assert of_bundles(outcome)["bundle_restarts_total", "loop"] == 1
    early = of_bundles(outcomes[2])
    assert early["bundle_up", "loop"] == 1
    assert ("bundle_restarts_total", "loop") not in early


async def test_a_404_is_a_failure_as_long_as_the_summary_is_not_in() -> None:
    async with replying(serving(Hang())) as url:
        outcome = await probe_once(on(url, timeout=SHORT))
    assert reasons(outcome) == {"health": "timeout", "bundles": "not_found"}


# --- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"expect": ["a", "b"], "ignore": ["c", "b"]}, "b is expected too"),
        ({"expect": ["a", ""]}, "expect[1]: must not be empty"),
        ({"ignore": "home"}, "ignore: must be a list"),
        ({"expect": [5]}, "expect[0]: must be a text"),
        ({"uptime_unit": "minutes"}, "must be auto | seconds | milliseconds"),
        ({"checks": ["health"]}, "checks: unknown key"),
    ],
)
def test_settings_that_cannot_be(keys: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yml"
    target = {"name": "t", "collector": "bundles", "url": "http://localhost", **keys}
    file.write_text(json.dumps({"targets": [target]}), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(file, {"bundles": Settings})
    assert message in str(caught.value)


def test_settings_default_to_nothing_expected_and_nothing_ignored() -> None:
    target = on("http://localhost:27247")
    assert (target.expect, target.ignore, target.uptime_unit) == ((), (), "auto")
    assert target.check_names() == ("health", "bundles")


@pytest.mark.parametrize(
    "keys", [{"expect": ["a"], "ignore": 5}, {"expect": [["a"]], "ignore": ["a"]}, {"expect": ["a"]}]
)
def test_the_rule_of_the_two_lists_minds_its_own_business(keys: dict[str, Any]) -> None:
    assert list(Settings.rules({"url": "http://localhost", **keys})) == []


# --- any server at all ----------------------------------------------------------------------------------------------

ANY_NUMBER = st.integers() | st.floats() | st.sampled_from([10**400, 2**63, -0.0])
ANY_JSON = st.recursive(
    st.none() | st.booleans() | ANY_NUMBER | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
ENTRIES = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "name": st.sampled_from(["a", "b", "a\x00", "\udfff", "x" * 500, ""]) | ANY_JSON,
            "state": st.sampled_from(STATES) | ANY_JSON,
            "uptime": ANY_NUMBER | ANY_JSON,
            "restartCount": ANY_NUMBER | ANY_JSON,
        },
    )
    | ANY_JSON,
    max_size=6,
)
HEALTH = st.fixed_dictionaries(
    {},
    optional={
        "bundles": ENTRIES | ANY_JSON,
        "version": ANY_JSON,
        "buildSha": ANY_JSON,
        "uptime": ANY_NUMBER | ANY_JSON,
    },
)
BODIES = st.tuples(
    (HEALTH | ANY_JSON).map(json.dumps) | st.text(), (ENTRIES | HEALTH | ANY_JSON).map(json.dumps) | st.text()
)
STATUSES = st.sampled_from([200, 200, 200, 200, 302, 401, 403, 404, 421, 500])
PROMISES = {None, "wrong_target", "decode", "schema", "auth", "not_found", "http_status", "redirect"}


@hypothesis_settings(deadline=None, max_examples=150)
@given(
    st.lists(st.tuples(BODIES, STATUSES), min_size=1, max_size=4), st.sampled_from(["auto", "seconds", "milliseconds"])
)
@example([(('{"bundles":[{"name":"a"}]}', '[{"name":"a","uptime":NaN}]'), 200)], "auto")
@example([(("[" * 50_000, "[" * 50_000), 200)], "auto")
def test_any_bytes_end_as_a_verdict(rounds: list[tuple[tuple[str, str], int]], unit: str) -> None:
    async def run() -> None:
        now: list[Answer] = []
        clock = FakeClock()
        paths = ["/v1/health", "/v1/bundles/health"]
        async with (
            replying(lambda request: now[paths.index(request.path)]) as url,
            prober_of(on(url, uptime_unit=unit, expect=["a"], ignore=["b"]), clock=clock.clock) as prober,
        ):
            for bodies, status in rounds:
                now[:] = [Answer(status, (), body.encode("utf-8", "surrogatepass")) for body in bodies]
                outcome = await ask(prober)
                assert set(reasons(outcome).values()) <= PROMISES | {"too_large"}
                join([encode_target(outcome, 5.0, static_labels=True)], PLAIN).decode()
                clock.advance(15)

    asyncio.run(run())


async def test_a_connection_that_ends_is_a_disconnect() -> None:
    async with replying(lambda _: Close()) as url:
        assert reasons(await probe_once(on(url))) == {"health": "disconnect", "bundles": "disconnect"}


# --- golden files ---------------------------------------------------------------------------------------------------

MOMENTS = re.compile(r"^(bundle_\w*(?:start_time|timestamp)_seconds\{.*\}) (\S+)$", re.MULTILINE)
WORKSPACE = [
    Bundle("bash"),
    Bundle("weather"),
    Bundle("weather", "crash_once", 100),
    Bundle("loop", "crash_loop"),
    Bundle("doomed", "doomed", 10),
    Bundle("old", "uninstalled", 50),
    Bundle("remote", "remote_down_boot"),
    Bundle("home"),
]


@pytest.mark.parametrize("mode", ["public", "recon", "documented"])
async def test_the_exposition_of_a_host_is_the_golden_one(mode: Mode, update_golden: bool) -> None:
    keys = {"name": "bundle-host", "expect": ["bash", "gone"], "ignore": ["home"]}
    async with watched(WORKSPACE, mode, **keys) as (host, prober, clock):
        host.faults = BundleHostFaults(entries=[None], states={"old": "archived"})
        for _ in range(16):
            clock.advance(15.3)
            outcome = await prober.probe("bundle-host", Budget.starting_now(5.0))
        text = join([encode_target(outcome, 9.5, static_labels=True)], PLAIN).decode()
    text = FLEETING.sub(r"\1\2 1.0", text).replace(host.url, "http://127.0.0.1:27247")
    text = MOMENTS.sub(lambda found: f"{found[1]} {round(float(found[2]))}", text)
    path = GOLDEN / f"bundles_{mode}.prom"
    if update_golden:
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def test_every_metric_of_the_table_is_in_a_golden_file() -> None:
    golden = [read((GOLDEN / f"bundles_{mode}.prom").read_text(encoding="utf-8")) for mode in ("recon", "documented")]
    assert {metric.name for metric in Bundles.metrics} <= {name for samples in golden for name, _ in samples}
