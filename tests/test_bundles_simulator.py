"""The simulated bundle host, held to what was measured and to what the documentation shows."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from health_exporter.simulators.bundles import Bundle, BundleHost, Mode, Release
from tests.support import FakeClock


def host_of(*bundles: Bundle, mode: Mode = "recon", release: Release = "0.12") -> tuple[BundleHost, FakeClock]:
    clock = FakeClock()
    return BundleHost(bundles, mode, clock.clock.monotonic, release=release), clock


def timeline(host: BundleHost, clock: FakeClock, seconds: int) -> list[tuple[int, str, int]]:
    """Return (second, state, count) of the first bundle wherever one of them changes, looked at every second."""
    found: list[tuple[int, str, int]] = []
    for second in range(seconds + 1):
        entry = host.listing()[0]
        if not found or found[-1][1:] != (entry["state"], entry["restartCount"]):
            found.append((second, entry["state"], entry["restartCount"]))
        clock.advance(1)
    return found


CYCLE = [
    (30, "restarting", 1),
    (31, "healthy", 1),
    (60, "restarting", 2),
    (62, "healthy", 2),
    (90, "restarting", 3),
    (94, "healthy", 3),
    (120, "restarting", 4),
    (128, "healthy", 4),
    (150, "restarting", 5),
    (166, "healthy", 5),
]
RESTARTING = [(30 * count, "restarting", count) for count in range(1, 6)]
TIMELINES: dict[str, tuple[Bundle, Release, int, list[tuple[int, str, int]]]] = {
    "crash loop": (
        Bundle("a", "crash_loop"),
        "0.12",
        600,
        [
            (0, "healthy", 0),
            *CYCLE,
            (180, "cooldown", 0),
            *((at + 450, state, count) for at, state, count in CYCLE[:9]),
        ],
    ),
    "crash loop, up to 0.11": (Bundle("a", "crash_loop"), "0.5", 900, [(0, "healthy", 0), *CYCLE, (180, "dead", 5)]),
    "never starts again": (
        Bundle("a", "doomed", 5),
        "0.12",
        470,
        [(0, "healthy", 0), *RESTARTING, (180, "cooldown", 0)],
    ),
    "never starts again, up to 0.11": (
        Bundle("a", "doomed", 5),
        "0.1",
        900,
        [(0, "healthy", 0), *RESTARTING, (180, "dead", 5)],
    ),
    "dies once": (
        Bundle("a", "crash_once", 5),
        "0.12",
        900,
        [(0, "healthy", 0), (30, "restarting", 1), (31, "healthy", 1), (90, "healthy", 0)],
    ),
    "dies once, no reset before 0.5": (
        Bundle("a", "crash_once", 5),
        "0.1",
        900,
        [(0, "healthy", 0), (30, "restarting", 1), (31, "healthy", 1)],
    ),
    "dies every 40 minutes": (
        Bundle("a", "slow_crash"),
        "0.12",
        2600,
        [(0, "healthy", 0), (2400, "restarting", 1), (2401, "healthy", 1), (2460, "healthy", 0)],
    ),
    "uninstalled": (Bundle("a", "uninstalled", 40), "0.12", 900, [(0, "healthy", 0), (60, "dead", 0)]),
    "remote, down at boot": (
        Bundle("a", "remote_down_boot"),
        "0.12",
        470,
        [(0, "restarting", 0), *RESTARTING, (180, "cooldown", 0)],
    ),
    "hung": (Bundle("a", "hung"), "0.12", 900, [(0, "healthy", 0)]),
    "steady": (Bundle("a"), "0.12", 900, [(0, "healthy", 0)]),
    "stopped": (Bundle("a", "stopped"), "0.12", 900, [(0, "dead", 0)]),
}


@pytest.mark.parametrize("name", TIMELINES)
def test_a_bundle_goes_its_measured_way(name: str) -> None:
    bundle, release, seconds, expected = TIMELINES[name]
    host, clock = host_of(bundle, release=release)
    assert timeline(host, clock, seconds) == expected


def test_it_makes_no_difference_how_often_somebody_looks() -> None:
    bundles = [Bundle("a", "crash_loop"), Bundle("b", "doomed", 700)]
    often, rarely = host_of(*bundles), host_of(*bundles)
    for _ in range(3600):
        often[1].advance(1)
        often[0].listing()
    rarely[1].advance(3600)
    assert often[0].listing() == rarely[0].listing()
    for name in ("a", "b"):
        assert often[0].true_restarts(name) == rarely[0].true_restarts(name) > 30


def test_an_hour_of_a_crash_loop_has_forty_restarts() -> None:
    host, clock = host_of(Bundle("loop", "crash_loop"), Bundle("steady"))
    clock.advance(3600)
    assert (host.true_restarts("loop"), host.true_restarts("steady")) == (40, 0)


def test_the_uptime_goes_on_while_down_and_is_null_only_for_what_never_started() -> None:
    host, clock = host_of(Bundle("doomed", "doomed", 10), Bundle("remote", "remote_down_boot"))
    clock.advance(259.522)
    doomed, remote = host.listing()
    assert doomed == {"name": "doomed", "state": "cooldown", "uptime": 259522, "restartCount": 0}
    assert remote["uptime"] is None


@pytest.mark.parametrize(
    ("mode", "up", "down"),
    [
        ("recon", ("healthy", 65_500), ("restarting", 65_500)),
        ("documented", ("running", 65), ("crashed", 0)),
        ("docs_variant", ("running", 65_500), ("crashed", None)),
    ],
)
def test_each_mode_has_its_words_and_its_unit(mode: Mode, up: tuple[str, Any], down: tuple[str, Any]) -> None:
    host, clock = host_of(Bundle("a"), Bundle("b", "doomed", 1), Bundle("c", "stopped"), mode=mode)
    clock.advance(65.5)
    assert [(entry["state"], entry["uptime"]) for entry in host.listing()[:2]] == [up, down]
    assert host.listing()[2]["state"] == ("dead" if mode == "recon" else "stopped")


def test_a_tool_call_restarts_at_once_without_a_count() -> None:
    host, clock = host_of(Bundle("a"), Bundle("doomed", "doomed", 1))
    clock.advance(109)
    host.crash("a")
    host.restart_inline("a")
    host.restart_inline("doomed")
    clock.advance(0.3)
    assert host.listing()[0] == {"name": "a", "state": "healthy", "uptime": 300, "restartCount": 0}
    assert (host.true_restarts("a"), host.true_restarts("doomed")) == (1, 3)


def test_a_tool_call_may_be_quicker_than_the_host() -> None:
    host, clock = host_of(Bundle("a", "crash_once", 10))
    clock.advance(30.5)
    host.restart_inline("a")
    clock.advance(1)
    assert host.listing()[0] == {"name": "a", "state": "healthy", "uptime": 1000, "restartCount": 1}
    assert host.true_restarts("a") == 2


def test_a_restart_inline_outlives_the_death_planned_for_the_start_before() -> None:
    host, clock = host_of(Bundle("a", "crash_loop"))
    clock.advance(2)
    host.restart_inline("a")
    clock.advance(2)
    host.crash("nobody")
    assert host.listing()[0]["uptime"] == 2000


def test_a_restart_of_the_host_is_none_of_its_bundles_and_changes_the_order() -> None:
    host, clock = host_of(Bundle("a", "crash_loop"), Bundle("b"), Bundle("b"))
    clock.advance(100)
    host.restart()
    clock.advance(1)
    assert [entry["name"] for entry in host.listing()] == ["b", "b", "a"]
    assert {(entry["uptime"], entry["restartCount"]) for entry in host.listing()} == {(1000, 0)}
    assert host.true_restarts("a") == 3
    assert host.uptime() == 1


async def ask(host: BundleHost, path: str, method: str = "GET") -> tuple[int, str, bytes]:
    async with aiohttp.ClientSession() as client, client.request(method, host.url + path, allow_redirects=False) as got:
        return got.status, got.headers.get("Content-Type", ""), await got.read()


NOT_FOUND = (404, "application/json", b'{"error":"not_found","message":"Not found"}')


async def test_the_public_release_answers_as_measured() -> None:
    async with BundleHost([Bundle("flaky"), Bundle("steady"), Bundle("steady")]) as host:
        status, kind, body = await ask(host, "/v1/health")
        assert (status, kind) == (200, "application/json")
        assert body == (
            b'{"status":"ok","version":"0.22.0","buildSha":"abc1234","bundles":[{"name":"flaky","state":"healthy"},'
            b'{"name":"steady","state":"healthy"},{"name":"steady","state":"healthy"}]}'
        )
        for path in ("/v1/bundles/health", "/v1/health/", "/", "/metrics"):
            assert await ask(host, path) == NOT_FOUND
        assert await ask(host, "/v1/health", "POST") == NOT_FOUND
        assert await ask(host, "/v1/health", "HEAD") == (200, "application/json", b"")


async def test_the_documented_example_is_answered_in_its_shape() -> None:
    clock = FakeClock()
    bundles = [Bundle("bash"), Bundle("weather"), Bundle("postgres", "doomed", 3530)]
    async with BundleHost(bundles, "documented", clock.clock.monotonic) as host:
        clock.advance(3600)
        summary = json.loads((await ask(host, "/v1/health"))[2])
        listed = json.loads((await ask(host, "/v1/bundles/health"))[2])
    assert summary == {
        "status": "ok",
        "uptime": 3600,
        "bundles": [
            {"name": "bash", "state": "running"},
            {"name": "weather", "state": "running"},
            {"name": "postgres", "state": "crashed"},
        ],
    }
    assert listed == [
        {"name": "bash", "state": "running", "uptime": 3600, "restartCount": 0},
        {"name": "weather", "state": "running", "uptime": 3600, "restartCount": 0},
        {"name": "postgres", "state": "crashed", "uptime": 0, "restartCount": 3},
    ]


@pytest.mark.parametrize(
    ("front", "status", "body"),
    [
        ("auth_wall", 401, b""),
        ("login_page", 200, b"<!doctype html>"),
        ("redirect", 302, b""),
        ("rate_limit", 429, b"<!doctype html>"),
        ("error", 500, b'{"error"'),
        ("garbage", 200, b'{"status":"ok","bundles":[{"na'),
    ],
)
async def test_what_stands_before_a_host_answers_instead_on_one_api_or_both(
    front: Any, status: int, body: bytes
) -> None:
    async with BundleHost(mode="recon") as host:
        host.faults.front = front
        assert all([(await ask(host, path))[0] == status for path in ("/v1/health", "/v1/bundles/health", "/x")])
        host.faults.only = "bundles"
        assert (await ask(host, "/v1/health"))[0] == 200
        got, _, text = await ask(host, "/v1/bundles/health")
    assert got == status
    assert text.startswith(body) if body else not text


async def test_a_host_that_hangs_gives_no_answer() -> None:
    async with BundleHost() as host:
        host.faults.front = "hang"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await ask(host, "/v1/health")


@pytest.mark.parametrize(("kind", "body"), [("page", b"<!doctype html>"), ("empty", b"")])
async def test_a_404_may_be_somebody_elses(kind: Any, body: bytes) -> None:
    async with BundleHost() as host:
        host.faults.not_found = kind
        status, _, text = await ask(host, "/v1/bundles/health")
    assert (status, text[: len(body)], bool(text)) == (404, body, bool(body))


async def test_entries_words_and_keys_can_be_wrong() -> None:
    async with BundleHost([Bundle("a")], "recon") as host:
        host.faults.entries = [None, {"name": 5}]
        host.faults.states = {"a": "odd"}
        host.faults.left_out = frozenset({"uptime"})
        host.faults.wrapped = True
        host.faults.slow_seconds = 0.001
        listed = json.loads((await ask(host, "/v1/bundles/health"))[2])
        summary = json.loads((await ask(host, "/v1/health"))[2])
    assert listed == {"bundles": [{"name": "a", "state": "odd", "restartCount": 0}, None, {"name": 5}]}
    assert summary["bundles"] == [{"name": "a", "state": "odd"}, None, {"name": 5}]
