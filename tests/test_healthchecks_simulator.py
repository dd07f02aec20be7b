"""The simulated Healthchecks server gives the answers measured on a real one."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from health_exporter.simulators.healthchecks import (
    READ_ONLY_KEY,
    READ_WRITE_KEY,
    Healthchecks,
    Job,
    SimulatedCheck,
    example_checks,
    hostile_checks,
    many_checks,
    next_run,
)
from tests.support import FakeClock

FIXTURES = Path(__file__).parent / "fixtures"
MEASURED: dict[str, dict[str, Any]] = json.loads((FIXTURES / "healthchecks_answers.json").read_text())["answers"]
NOW = 1_800_000_000.0
OWN_HEADERS = {"date", "connection", "keep-alive", "content-length"}


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(skip_auto_headers=("Accept-Encoding",)) as made:
        yield made


@pytest.fixture
async def server() -> AsyncIterator[Healthchecks]:
    async with Healthchecks(clock=lambda: NOW) as made:
        yield made


class Got:
    """What a client got, the headers sorted by name and without those of the connection."""

    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status = status
        self.headers = sorted((name, value) for name, value in headers.items() if name.lower() not in OWN_HEADERS)
        self.body = body

    @property
    def document(self) -> Any:
        return json.loads(self.body)


async def get(
    client: aiohttp.ClientSession, server: Healthchecks, path: str, key: str = "", method: str = "GET", **headers: str
) -> Got:
    sent = {**({"X-Api-Key": key} if key else {}), **headers}
    async with client.request(method, server.url + path, headers=sent, allow_redirects=False) as response:
        return Got(response.status, response.headers, await response.read())


# --- the measured answers -------------------------------------------------------------------------------------------

RO, RW = READ_ONLY_KEY, READ_WRITE_KEY
LIST, STATUS, CHANNELS = "/api/v3/checks/", "/api/v3/status/", "/api/v3/channels/"
NO_KEY, NO_UUID = "0" * 40, "00000000-0000-4000-8000-000000000000"
OTHER = SimulatedCheck("Not yours", "not-yours")

# Measured answer, and the request that brings the simulator to give it: method, path, key, faults.
SAME: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "status_ok": ("GET", STATUS, "", {}),
    "dbgarbage_status": ("GET", STATUS, "", {"database": "garbage"}),
    "dbbroken_status": ("GET", STATUS, "", {"database": "unopenable"}),
    "status_noslash": ("GET", "/api/v3/status", "", {}),
    "checks_list_noslash": ("GET", "/api/v3/checks", RO, {}),
    "checks_list_wrongkey_32": ("GET", LIST, "x" * 32, {}),
    "checks_list_wrongkey_short": ("GET", LIST, "short", {}),
    "checks_list_nokey": ("GET", LIST, "", {}),
    "checks_list_put": ("PUT", LIST, RO, {}),
    "checks_tag_empty": ("GET", f"{LIST}?tag=", RO, {}),
    "dbbroken_checks": ("GET", LIST, RO, {"database": "unopenable"}),
    "dbgarbage_checks": ("GET", LIST, RO, {"database": "garbage"}),
    "check_uuid_missing": ("GET", f"{LIST}{NO_UUID}", RW, {}),
    "check_uniquekey_missing": ("GET", f"{LIST}{NO_KEY}", RW, {}),
    "check_uuid_other_project": ("GET", f"{LIST}{OTHER.uuid}", RW, {}),
    "channels_nokey": ("GET", CHANNELS, "", {}),
    "flips_missing": ("GET", f"{LIST}{NO_UUID}/flips/", RO, {}),
    "flips_other_project": ("GET", f"{LIST}{OTHER.uuid}/flips/", RO, {}),
}


@pytest.mark.parametrize("name", SAME)
async def test_an_answer_is_the_measured_one(client: aiohttp.ClientSession, server: Healthchecks, name: str) -> None:
    method, path, key, faults = SAME[name]
    for fault, value in faults.items():
        setattr(server.faults, fault, value)
    got, measured = await get(client, server, path, key, method), MEASURED[name]
    assert (got.status, got.body.decode()) == (measured["status"], measured["body"])
    assert got.headers == sorted((header, value) for header, value in measured["headers"])


# Measured answer with content of its own: path, key, and the status and headers are the measured ones.
ALIKE: dict[str, tuple[str, str]] = {
    "checks_list_ro": (LIST, RO),
    "channels_rw": (CHANNELS, RW),
    "check_uuid_rw": ("{uuid}", RW),
    "check_uuid_ro": ("{uuid}", RO),
    "flips_ro": ("{uuid}/flips/", RO),
    "flips_ro_uniquekey": ("{key}/flips/", RO),
}


@pytest.mark.parametrize("name", ALIKE)
async def test_an_answer_has_the_measured_shape(client: aiohttp.ClientSession, server: Healthchecks, name: str) -> None:
    path, key = ALIKE[name]
    check = server.checks[3]
    got = await get(client, server, path.format(uuid=LIST + str(check.uuid), key=LIST + check.unique_key), key)
    measured = MEASURED[name]
    assert (got.status, got.headers) == (measured["status"], sorted(map(tuple, measured["headers"])))
    assert shape(got.document) == shape(json.loads(measured["body"]))
    assert got.body.decode() == json.dumps(got.document)


def shape(document: Any) -> Any:
    """Return which fields there are, and of which types: of all entries of a list together, without their order."""
    if isinstance(document, dict):
        return {name: shape(value) for name, value in document.items() if name != "last_duration"}
    if isinstance(document, list):
        fields: dict[str, set[str]] = {}
        for one in document:
            for name, value in one.items():
                fields.setdefault(name, set()).add(type(value).__name__)
        return fields
    return type(document).__name__


async def test_an_unknown_host_is_refused_before_anything_else(
    client: aiohttp.ClientSession, server: Healthchecks
) -> None:
    got = await get(client, server, LIST, Host="evil.example")
    measured = MEASURED["checks_list_badhost"]
    assert (got.status, got.body.decode(), got.headers) == (
        400,
        measured["body"],
        sorted(map(tuple, measured["headers"])),
    )
    assert (await get(client, server, STATUS, Host="localhost")).status == 200


# --- keys, methods, paths -------------------------------------------------------------------------------------------

REFUSED = [
    ("GET", CHANNELS, RO, 401, b'{"error": "wrong api key"}'),
    ("GET", "/", RO, 404, b"Not Found"),
    ("GET", "/api/v3/pings/", RO, 404, b"Not Found"),
    ("GET", f"{LIST}no-id", RO, 404, b"Not Found"),
    ("GET", f"{LIST}{NO_UUID}/", RO, 404, b"Not Found"),
    ("GET", f"{LIST}{NO_KEY}/flips", RO, 301, b""),
    ("GET", f"{LIST}{OTHER.unique_key}", RO, 404, b""),
    ("GET", f"{LIST}{OTHER.unique_key}/flips/", RO, 404, b""),
    ("OPTIONS", LIST, "", 204, b""),
    ("POST", STATUS, "", 403, b"CSRF"),
    ("HEAD", STATUS, "", 200, b""),
    ("HEAD", LIST, RO, 405, b""),
]


@pytest.mark.parametrize("call", REFUSED, ids=lambda call: f"{call[0]} {call[1]}")
async def test_calls_that_are_refused(
    client: aiohttp.ClientSession, server: Healthchecks, call: tuple[str, str, str, int, bytes]
) -> None:
    method, path, key, status, words = call
    got = await get(client, server, path, key, method)
    assert got.status == status
    assert words in got.body
    assert bool(words) == bool(got.body)


async def test_a_prefix_is_part_of_every_path(client: aiohttp.ClientSession) -> None:
    async with Healthchecks(prefix="/hc") as server:
        assert (await get(client, server, LIST, RO)).status == 200
        document = (await get(client, server, LIST, RW)).document
        assert document["checks"][0]["update_url"].startswith(f"{server.url}/api/v3/checks/")
        got = await get(client, server, "/api/v3/checks?tag=a", RO)
        assert ("Location", "/hc/api/v3/checks/?tag=a") in got.headers
        server.prefix = "/other"
        assert (await get(client, server, LIST, RO)).status == 200
        async with client.get(server.url.removesuffix("/other") + LIST) as response:
            assert response.status == 404


FILTERS = [
    ("", 9),
    ("?tag=prod", 4),
    ("?tag=prod&tag=backup", 2),
    ("?tag=pro", 0),
    ("?tag=", 0),
    ("?slug=brand-new", 1),
    ("?slug=none", 0),
    ("?slug=", 9),
    ("?page=2&limit=1", 9),
]


@pytest.mark.parametrize(("query", "number"), FILTERS)
async def test_filters(client: aiohttp.ClientSession, server: Healthchecks, query: str, number: int) -> None:
    assert len((await get(client, server, LIST + query, RO)).document["checks"]) == number


async def test_large_answers_are_compressed_when_that_is_accepted(
    client: aiohttp.ClientSession, server: Healthchecks
) -> None:
    got = await get(client, server, LIST, RO, **{"Accept-Encoding": "gzip"})
    assert ("Content-Encoding", "gzip") in got.headers
    assert len(got.document["checks"]) == 9
    server.faults.gzip = False
    assert ("Content-Encoding", "gzip") not in (
        await get(client, server, LIST, RO, **{"Accept-Encoding": "gzip"})
    ).headers


@pytest.mark.parametrize("release", ["v4.4", "v3.4", "document"])
async def test_fields_depend_on_release_and_key(client: aiohttp.ClientSession, release: Any) -> None:
    check = SimulatedCheck("Job")
    check.ping(NOW, "start")
    check.ping(NOW + 0.5)
    async with Healthchecks([check], release=release, clock=lambda: NOW + 1) as server:
        fields = {key: set((await get(client, server, LIST, key)).document["checks"][0]) for key in (RO, RW)}
        flips = (await get(client, server, f"{LIST}{check.unique_key}/flips/", RO)).document
    urls = {"ping_url", "update_url", "pause_url", "resume_url", "channels"}
    assert fields[RW] - fields[RO] == urls | ({"uuid"} if release == "v4.4" else set())
    assert fields[RO] - fields[RW] == {"unique_key"}
    assert ("badge_url" in fields[RO], "subject" in fields[RO]) == (release == "v4.4", release != "document")
    assert ("last_duration" in fields[RO]) == (release != "document")
    if release == "document":
        names = set(json.loads((FIXTURES / "healthchecks_document.json").read_text())["read_only"]["checks"][0])
        assert fields[RO] == names
    bare = [{"timestamp": "2027-01-15T08:00:00+00:00", "up": 1}]
    assert flips == (bare if release == "document" else {"flips": bare})


# --- faults ---------------------------------------------------------------------------------------------------------

# Faults, and what status and the list then answer; None: no answer.
FAULTS: list[tuple[dict[str, Any], int | None, int | None]] = [
    ({"database": "moved"}, 200, 500),
    ({"database": "locked", "lock_seconds": 0}, 200, 500),
    ({"broken_row": True}, 200, 500),
    ({"harakiri": True}, 200, None),
    ({"list_seconds": 0.001}, 200, 200),
    ({"proxy": "login_page"}, 200, 200),
    ({"proxy": "forbidden"}, 403, 403),
    ({"proxy": "redirect"}, 302, 302),
    ({"proxy": "rate_limit"}, 429, 429),
]


@pytest.mark.parametrize(("faults", "status", "listed"), FAULTS)
async def test_faults(
    client: aiohttp.ClientSession, server: Healthchecks, faults: dict[str, Any], status: int | None, listed: int | None
) -> None:
    for fault, value in faults.items():
        setattr(server.faults, fault, value)
    assert (await get(client, server, STATUS)).status == status
    if listed is None:
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await get(client, server, LIST, RO)
    else:
        got = await get(client, server, LIST, RO)
        assert got.status == listed
        assert (b"<" in got.body) == (listed == 500 or "login_page" in faults.values())
    # Without a key nobody asks the database.
    if "database" in faults:
        assert (await get(client, server, LIST)).status == 401


async def test_the_alert_loop_dies_of_a_lock(client: aiohttp.ClientSession, server: Healthchecks) -> None:
    server.faults.database, server.faults.lock_seconds = "locked", 0
    await get(client, server, LIST, RO)
    assert server.faults.sendalerts == "dead"


async def test_a_silent_server_never_answers(client: aiohttp.ClientSession, server: Healthchecks) -> None:
    server.faults.silent = True
    with pytest.raises(TimeoutError):
        async with client.get(server.url + STATUS, timeout=aiohttp.ClientTimeout(total=0.1)):
            pass


async def test_entries_can_be_anything(client: aiohttp.ClientSession, server: Healthchecks) -> None:
    server.checks, server.extra_entries = hostile_checks(), [None, 7]
    entries = (await get(client, server, LIST, RO)).document["checks"]
    assert entries[-2:] == [None, 7]
    assert [entry["name"] for entry in entries[:-2]] == [check.name for check in server.checks]
    assert len({entry["unique_key"] for entry in entries[:-2]}) == len(server.checks)


# --- flips ----------------------------------------------------------------------------------------------------------

WINDOWS = [
    ("", 200, [0, 1, 1]),
    ("?seconds=0", 200, [0, 1, 1]),
    ("?seconds=", 200, [0, 1, 1]),
    ("?seconds=100", 200, [0, 1]),
    ("?seconds=1", 200, []),
    ("?seconds=31536000", 200, [0, 1, 1]),
    ("?seconds=31536001", 400, None),
    ("?seconds=-1", 400, None),
    ("?seconds=1.5", 400, None),
    ("?seconds=abc", 400, None),
    (f"?start={NOW - 100:.0f}", 200, [0, 1]),
    (f"?end={NOW - 100:.0f}", 200, [1]),
    ("?start=", 400, None),
    ("?end=2026-01-01", 400, None),
]


@pytest.mark.parametrize(("query", "status", "ups"), WINDOWS)
async def test_flips_within_a_window(
    client: aiohttp.ClientSession, server: Healthchecks, query: str, status: int, ups: list[int] | None
) -> None:
    check = server.checks[6]
    check.flips = [(NOW - 5000, 1), (NOW - 100, 1), (NOW - 50, 0)]
    got = await get(client, server, f"{LIST}{check.uuid}/flips/{query}", RO)
    assert got.status == status
    assert (got.body == b"") == (ups is None)
    if ups is not None:
        assert [flip["up"] for flip in got.document["flips"]] == ups


# --- checks and time ------------------------------------------------------------------------------------------------


def state_of(check: SimulatedCheck, now: float, *, alerting: bool = True) -> tuple[str, bool, float | None]:
    check.advance(now, alerting=alerting)
    return check.status(now), check.last_start is not None, check.next_ping()


def made(*pings: tuple[float, Any], **keys: Any) -> SimulatedCheck:
    check = SimulatedCheck("Job", **{"timeout": 600, "grace": 60, **keys})
    for at, kind in pings:
        getattr(check, kind)(at) if kind in ("pause", "resume") else check.ping(at, kind)
    return check


# What happened, how long ago the first of it was, and: status, started, next ping (seconds from the first)
HISTORIES: dict[str, tuple[tuple[tuple[float, str], ...], float, tuple[str, bool, float | None]]] = {
    "nothing": ((), 0, ("new", False, None)),
    "log only": (((0, "log"), (1, "ignored")), 5, ("new", False, None)),
    "success": (((0, "success"),), 5, ("up", False, 600)),
    "late": (((0, "success"),), 601, ("grace", False, 600)),
    "overdue": (((0, "success"),), 660, ("down", False, None)),
    "failed": (((0, "success"), (1, "fail")), 5, ("down", False, None)),
    "started from new": (((0, "start"),), 5, ("new", True, 0)),
    "started from up": (((0, "success"), (5, "start")), 10, ("up", True, 5)),
    "started from down": (((0, "fail"), (5, "start")), 10, ("down", True, None)),
    "started and never ended": (((0, "start"),), 60, ("down", True, None)),
    "paused": (((0, "success"), (5, "pause"), (6, "pause")), 10, ("paused", False, None)),
    "started while paused": (((0, "pause"), (5, "start")), 10, ("paused", True, 5)),
    "resumed": (((0, "success"), (5, "pause"), (6, "resume"), (7, "resume")), 10, ("new", False, None)),
}


@pytest.mark.parametrize("name", HISTORIES)
def test_the_state_follows_from_what_happened(name: str) -> None:
    pings, later, (status, started, next_ping) = HISTORIES[name]
    check = made(*((NOW + at, kind) for at, kind in pings))
    expected = None if next_ping is None else NOW + next_ping
    assert state_of(check, NOW + later) == (status, started, expected)


def test_without_the_alert_loop_a_check_that_is_down_keeps_its_next_ping_and_writes_no_flip() -> None:
    check = made((NOW, "success"))
    assert state_of(check, NOW + 2000, alerting=False) == ("down", False, NOW + 600)
    assert check.flips == [(NOW, 1)]
    assert state_of(check, NOW + 2000) == ("down", False, None)
    assert check.flips == [(NOW, 1), (NOW + 660, 0)]


def test_pause_and_resume_are_both_flips_to_down() -> None:
    check = made((NOW, "pause"), (NOW, "pause"), (NOW + 1, "resume"), (NOW + 1, "resume"))
    assert check.flips == [(NOW, 0), (NOW + 1, 0)]


def test_a_duration_is_known_after_a_run_that_was_started() -> None:
    check = made((NOW, "start"), (NOW + 3.2, "success"))
    assert check.last_duration == pytest.approx(3.2)
    check.ping(NOW + 10)
    assert check.last_duration is None
    assert check.n_pings == 3


async def test_jobs_ping_as_virtual_time_passes(client: aiohttp.ClientSession) -> None:
    clock = FakeClock(NOW)
    check = made(job=Job(600, takes=20, fails_every=3))
    async with Healthchecks([check], clock=clock.clock.wall) as server:
        seen = []
        for seconds in (0, 20, 580, 20, 600, 600, 580, 20):
            clock.advance(seconds)
            entry = (await get(client, server, LIST, RO)).document["checks"][0]
            seen.append((entry["status"], entry["started"], entry["n_pings"]))
        assert check.job is not None
        check.job.stopped = True
        clock.advance(3600)
        seen.append((await get(client, server, LIST, RO)).document["checks"][0]["status"])
    assert seen == [
        ("new", True, 1), ("up", False, 2), ("up", True, 3), ("up", False, 4), ("down", False, 6), ("up", False, 8),
        ("up", True, 9), ("up", False, 10), "down",
    ]  # fmt: skip


SCHEDULES = [
    ("* * * * *", "UTC", "2026-11-21T21:18:05", "2026-11-21T21:19:00"),
    ("*/15 * * * *", "UTC", "2026-11-21T21:18:05", "2026-11-21T21:30:00"),
    ("15 5 * * *", "UTC", "2026-11-21T21:18:05", "2026-11-22T05:15:00"),
    ("15 5 * * *", "Europe/Riga", "2026-11-21T21:18:05", "2026-11-22T03:15:00"),
    ("0,30 8-9 * * 1-5", "UTC", "2026-11-20T09:30:00", "2026-11-23T08:00:00"),
    ("0 0 1 1 *", "UTC", "2026-11-20T09:30:00", "2027-01-01T00:00:00"),
    ("0 0 30 2 *", "UTC", "2026-11-20T09:30:00", None),
    ("2020-01-01 12:00", "UTC", "2026-11-20T09:30:00", None),
]


@pytest.mark.parametrize(("schedule", "tz", "after", "due"), SCHEDULES)
def test_schedules(schedule: str, tz: str, after: str, due: str | None) -> None:
    def unix(text: str) -> float:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()

    assert next_run(schedule, tz, unix(after)) == (None if due is None else unix(due))


def test_a_check_whose_schedule_is_over_stays_up() -> None:
    assert state_of(made((NOW, "success"), schedule="2020-01-01 12:00"), NOW + 1e7) == ("up", False, None)


def test_the_example_has_a_check_in_every_state() -> None:
    checks = example_checks(NOW)
    states = {state_of(check, NOW)[0] for check in checks}
    assert states == {"new", "up", "grace", "down", "paused"}
    assert any(check.last_start is not None for check in checks)


def test_ten_thousand_checks_differ_and_have_all_states() -> None:
    checks = many_checks(10_000, NOW)
    assert len({check.unique_key for check in checks}) == 10_000
    assert {check.status(NOW) for check in checks} == {"up", "grace", "down", "paused"}
    assert {bool(check.schedule) for check in checks} == {True, False}
