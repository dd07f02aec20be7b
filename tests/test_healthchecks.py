"""The Healthchecks collector: every measured answer, every state of a server and of a check, and what is asked."""

import asyncio
import json
import logging
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from collectors.base import CheckReport, Clock
from collectors.healthchecks import CAUSES, STATUSES, Entry, Settings, read_list
from collectors.healthchecks import Healthchecks as Collector
from collectors.http import LARGE_REPLY, HttpClient
from collectors.settings import TargetSettings
from health_exporter.exposition import PLAIN, encode_target, join
from health_exporter.outcome import Outcome
from health_exporter.prober import Budget, Prober
from health_exporter.simulators.healthchecks import (
    HOSTILE_TEXTS,
    READ_ONLY_KEY,
    READ_WRITE_KEY,
    Healthchecks,
    SimulatedCheck,
    example_checks,
    hostile_checks,
)
from health_exporter.simulators.wire import Answer, Hang, Reply, Request, Server
from tests.support import FakeClock, contexts_of, probe_once, prober_of, read, reasons, samples_of, settings

HERE = Path(__file__).parent
MEASURED: dict[str, dict[str, Any]] = json.loads((HERE / "fixtures" / "healthchecks_answers.json").read_text())[
    "answers"
]
DOCUMENT: dict[str, Any] = json.loads((HERE / "fixtures" / "healthchecks_document.json").read_text())
ALL = ("status", "checks", "integrations", "flips")
NOW = 1_800_000_000.0
SHORT = 0.25
"""The timeout of probes in which something never answers."""
Samples = dict[tuple[str, ...], float]


def target(url: str, key: str = READ_ONLY_KEY, **keys: Any) -> TargetSettings:
    return settings("healthchecks", url=url, api_key=key, **keys)


def own(outcome: Outcome) -> Samples:
    """Return the samples of the collector's own metrics, without their common prefix."""
    prefix = "healthchecks_"
    return {(k[0].removeprefix(prefix), *k[1:]): n for k, n in samples_of(outcome).items() if k[0].startswith(prefix)}


def of(samples: Samples, name: str) -> Samples:
    """Return the samples of one metric, by their label values."""
    return {key[1:]: number for key, number in samples.items() if key[0] == name}


async def ask(prober: Prober, seconds: float = 5.0) -> Outcome:
    return await prober.probe("t", Budget.starting_now(seconds))


async def probe_list(*entries: Any, now: float = NOW, **keys: Any) -> Outcome:
    """Probe a server whose list has these entries, raw."""
    async with Healthchecks([]) as server:
        server.extra_entries = list(entries)
        async with prober_of(target(server.url, checks=["checks"], **keys), clock=FakeClock(now).clock) as prober:
            return await ask(prober)


def entry(key: str = "a" * 40, **fields: Any) -> dict[str, Any]:
    return {"status": "up", "unique_key": key, **fields}


# --- measured answers -----------------------------------------------------------------------------------------------

# check -> reason -> the answers that give it; "" is a check that passes.
VERDICTS: dict[str, dict[str, tuple[str, ...]]] = {
    "status": {
        "": ("status_ok", "dbgarbage_status"),
        "redirect": ("status_noslash",),
        "http_status": ("dbbroken_status", "checks_list_badhost"),
        "not_found": ("check_uuid_missing",),
        "wrong_target": ("checks_list_ro", "status_post", "checks_list_nokey"),
        "auth": ("check_uuid_other_project",),
    },
    "checks": {
        "": (
            "checks_list_ro",
            "checks_list_empty_project",
            "checks_tag_prod",
            "checks_tag_two",
            "checks_tag_empty",
            "dbback_checks",
            "sendalerts_alive_expired",
        ),
        "redirect": ("checks_list_noslash",),
        "auth": (
            "checks_list_wrongkey_32",
            "checks_list_wrongkey_short",
            "checks_list_nokey",
            "check_uuid_other_project",
        ),
        "not_found": ("check_uuid_missing", "check_uniquekey_missing"),
        "http_status": ("checks_list_badhost", "checks_list_put", "dbbroken_checks", "dbgarbage_checks"),
        # A page with 403; JSON and texts of another kind with 200.
        "wrong_target": (
            "status_post",
            "status_ok",
            "channels_rw",
            "badges_empty_project",
            "server_metrics_key",
            "check_uuid_ro",
        ),
    },
    "integrations": {
        "": ("channels_rw", "channels_empty"),
        "auth": ("channels_nokey", "pings_ro"),
        "http_status": ("dbbroken_checks",),
        "wrong_target": ("checks_list_ro",),
    },
    "flips": {
        "": (
            "flips_ro",
            "flips_ro_uniquekey",
            "flips_none",
            "flips_timeout_check",
            "sendalerts_alive_flips",
        ),
        "http_status": ("flips_bad_seconds",),
        "not_found": ("flips_missing", "check_uniquekey_missing"),
        "auth": ("flips_other_project", "channels_nokey"),
        "wrong_target": ("check_uuid_rw",),
    },
}
ROWS = [
    (check, name, reason or None)
    for check, by_reason in VERDICTS.items()
    for reason, names in by_reason.items()
    for name in names
]


def replayed(name: str) -> Answer:
    measured = MEASURED[name]
    headers = tuple((key, value) for key, value in measured["headers"])
    return Answer(measured["status"], headers, measured["body"].encode())


async def replay(answers: dict[str, Answer], checks: tuple[str, ...], **keys: Any) -> Outcome:
    """Probe a server that gives these answers, by the end of the path."""

    def answer(request: Request) -> Reply:
        return next(given for end, given in answers.items() if request.path.endswith(end))

    async with Server(answer) as server:
        return await probe_once(target(f"http://127.0.0.1:{server.port}", checks=list(checks), **keys))


ENDS = {"status": "/status/", "checks": "/checks/", "integrations": "/channels/", "flips": "/flips/"}
ONE_CHECK = Answer(200, (), json.dumps({"checks": [entry()]}).encode())


@pytest.mark.parametrize(("check", "name", "reason"), ROWS)
async def test_every_measured_answer_gives_its_verdict(check: str, name: str, reason: str | None) -> None:
    answers = {ENDS[check]: replayed(name)}
    checks: tuple[str, ...] = (check,)
    if check == "flips":
        answers, checks = {**answers, "/checks/": ONE_CHECK}, ("checks", "flips")
    outcome = await replay(answers, checks)
    assert reasons(outcome)[check] == reason
    assert samples_of(outcome)[("probe_check_http_status_code", check)] == MEASURED[name]["status"]


def test_every_fixture_is_used() -> None:
    assert {name for _, name, _ in ROWS} == set(MEASURED)


async def test_the_measured_project_with_a_check_in_every_state_is_read() -> None:
    samples = own(await replay({"/checks/": replayed("checks_list_ro")}, ("checks",)))
    entries = {raw["unique_key"]: raw for raw in json.loads(MEASURED["checks_list_ro"]["body"])["checks"]}
    assert len(entries) == 33

    statuses = of(samples, "check_status")
    assert {key for key, number in statuses.items() if number} == {(k, raw["status"]) for k, raw in entries.items()}
    assert len(statuses) == 33 * len(STATUSES)
    by_status = Counter(raw["status"] for raw in entries.values())
    assert of(samples, "checks") == {(status,): by_status[status] for status in STATUSES}
    assert min(by_status[status] for status in STATUSES[:-1]) > 1
    for metric, name in (
        ("check_last_ping_timestamp_seconds", "last_ping"),
        ("check_last_duration_seconds", "last_duration"),
        ("check_timeout_seconds", "timeout"),
    ):
        there = {(key,) for key, raw in entries.items() if raw.get(name) is not None}
        assert set(of(samples, metric)) == there
    assert samples["checks_running",] == sum(raw["started"] for raw in entries.values()) == 6
    assert of(samples, "check_pings_total") == {(key,): raw["n_pings"] for key, raw in entries.items()}
    assert set(of(samples, "checks_skipped").values()) == {0}


# --- what one entry publishes ---------------------------------------------------------------------------------------

K = "a" * 40
T1, T2 = "2026-11-21T21:18:05+00:00", "2026-11-21T22:18:05+00:00"
AT1, AT2 = 1795295885.0, 1795299485.0
LAST, NEXT, DEADLINE = (
    f"check_{name}_timestamp_seconds" for name in ("last_ping", "next_ping", "deadline")
)  # fmt: skip

# The entry beside its key and a grace of 600 s, and what it publishes beside info, status and grace.
ENTRIES: dict[str, tuple[dict[str, Any], dict[str, float]]] = {
    "new": ({"status": "new", "last_ping": None, "next_ping": None, "started": False}, {"check_started": 0}),
    "up": ({"last_ping": T1, "next_ping": T2}, {LAST: AT1, NEXT: AT2, DEADLINE: AT2 + 600}),
    "up with nothing more to come": ({"last_ping": T1, "next_ping": None}, {LAST: AT1}),
    "late": ({"status": "grace", "last_ping": T1, "next_ping": T2}, {LAST: AT1, NEXT: AT2, DEADLINE: AT2 + 600}),
    "down": ({"status": "down", "last_ping": T1, "next_ping": None}, {LAST: AT1}),
    "started": ({"started": True, "next_ping": T1}, {"check_started": 1, DEADLINE: AT1 + 600}),
    "started while paused": (
        {"status": "paused", "started": True, "next_ping": T1},
        {"check_started": 1, DEADLINE: AT1 + 600},
    ),
    "quick run": ({"last_duration": 0}, {"check_last_duration_seconds": 0}),
    "simple": ({"timeout": 3600}, {"check_timeout_seconds": 3600}),
    "no pings yet": ({"n_pings": 0}, {"check_pings_total": 0}),
    "without grace": ({"grace": None, "next_ping": T2}, {NEXT: AT2}),
    "a status nobody knows": ({"status": "sleeping"}, {}),
    "time of another zone": ({"last_ping": "2026-11-21T23:18:05+02:00"}, {LAST: AT1}),
    "time without zone": ({"last_ping": "2026-11-21T21:18:05"}, {LAST: AT1}),
    "time with Z": ({"last_ping": "2026-11-21T21:18:05Z"}, {LAST: AT1}),
}


@pytest.mark.parametrize("name", ENTRIES)
async def test_what_an_entry_publishes(name: str) -> None:
    fields, expected = ENTRIES[name]
    outcome = await probe_list({**entry(grace=600), **fields})
    samples = own(outcome)
    published = {key[0]: number for key, number in samples.items() if key[1:] == (K,)}
    assert published.pop("check_grace_seconds", 600) == 600
    assert published == expected
    status = fields.get("status", "up")
    status = status if status in STATUSES else "unknown"
    assert of(samples, "check_status") == {(K, one): one == status for one in STATUSES}
    assert of(samples, "checks") == {(one,): one == status for one in STATUSES}
    assert samples["checks_running",] == fields.get("started", False)


INFOS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "simple": (
        {"name": "Backup", "slug": "backup", "tags": "a  b ", "timeout": 60},
        ("Backup", "backup", "a  b ", "simple", "", ""),
    ),
    "cron": ({"schedule": "15 5 * * *", "tz": "Europe/Riga"}, ("", "", "", "cron", "15 5 * * *", "Europe/Riga")),
    "simple with a time zone": ({"timeout": 60, "tz": "UTC"}, ("", "", "", "simple", "", "")),
    "nulls": ({"name": None, "slug": None, "tags": None, "schedule": None}, ("", "", "", "simple", "", "")),
    "control characters": ({"name": "a\x00b\nc\ud800"}, ("a�b�c�", "", "", "simple", "", "")),
}


def test_a_time_without_zone_is_utc_wherever_the_exporter_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "XXX+5")
    time.tzset()
    try:
        assert Entry.model_validate(entry(last_ping=T1.removesuffix("+00:00"))).last_ping == AT1
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("name", INFOS)
async def test_text_stands_in_the_info_alone(name: str) -> None:
    fields, labels = INFOS[name]
    assert of(own(await probe_list(entry(**fields))), "check_info") == {(K, *labels): 1}


async def test_with_active_status_samples_only_the_present_status_is_published() -> None:
    outcome = await probe_list(
        entry(), entry("b" * 40, status="down"), entry("c" * 40, status="?"), status_samples="active"
    )
    assert of(own(outcome), "check_status") == {(K, "up"): 1, ("b" * 40, "down"): 1, ("c" * 40, "unknown"): 1}


async def test_a_large_list_is_read_like_a_small_one() -> None:
    raw = [entry(f"{n:040}", name="x" * 200, tags=f"a t{n}") for n in range(300)]
    assert len(json.dumps(raw)) > LARGE_REPLY
    samples = own(await probe_list(*raw, 7, tag_metrics=True))
    assert len(of(samples, "check_info")) == samples["checks", "up"] == samples["tag_checks", "a", "up"] == 300
    assert samples["checks_skipped", "malformed"] == 1


# --- entries that are not read --------------------------------------------------------------------------------------

MALFORMED: tuple[Any, ...] = (
    None, 7, "x", [], {}, {"unique_key": K}, {"status": None}, entry(status=1), entry(name=7), entry(tags=["a"]),
    entry(last_ping=1), entry(last_ping="soon"), entry(last_ping="\ud800"), entry(n_pings=-1), entry(n_pings=True),
    entry(grace="600"), entry(grace=10**400), entry(started=1), entry(unique_key=7), entry(timeout={}), entry(grace=-1),
)  # fmt: skip


@pytest.mark.parametrize("bad", MALFORMED, ids=lambda bad: json.dumps(bad)[:60])
async def test_a_malformed_entry_is_counted_and_costs_no_other(bad: Any) -> None:
    samples = own(await probe_list(entry("1" * 40), bad, entry("2" * 40)))
    assert set(of(samples, "check_info")) >= {(key * 40, "", "", "", "simple", "", "") for key in "12"}
    assert of(samples, "checks_skipped") == {("malformed",): 1, ("duplicate",): 0, ("no_key",): 0}
    assert samples["checks", "up"] == 2


async def test_of_two_entries_with_one_key_the_first_stands() -> None:
    outcome = await probe_list(
        entry(name="first"),
        entry(name="second", status="down"),
        entry("x\x00"),
        entry("x\x01"),
        entry("", name="none"),
        {"status": "up", "uuid": "no", "update_url": "x/y"},
    )
    samples = own(outcome)
    assert reasons(outcome) == {"checks": None}
    assert {key[:2] for key in of(samples, "check_info")} == {(K, "first"), ("x�", "")}
    assert of(samples, "checks_skipped") == {("malformed",): 0, ("duplicate",): 2, ("no_key",): 2}
    assert (samples["checks", "up"], samples["checks", "down"]) == (2, 0)


async def test_hostile_names_cost_neither_the_scrape_nor_each_other() -> None:
    async with Healthchecks(hostile_checks()) as server:
        outcome = await probe_once(target(server.url, tag_metrics=True))
    assert reasons(outcome) == {"status": None, "checks": None}
    text = join([encode_target(outcome, 10.0, static_labels=True)], PLAIN).decode()
    names = {dict(labels)["name"] for (name, labels), _ in read(text).items() if name == "healthchecks_check_info"}
    assert len(names) == len(HOSTILE_TEXTS)
    assert max(map(len, names)) == 200 + len("~") + 8


# --- one series for a check, whatever the key -----------------------------------------------------------------------

# uuid and unique key, as measured and as the API document has them
PAIRS = (
    ("bbef1d22-dc7c-4f22-b446-e88a99b81fd4", "ae63f9dfab551b6dfd9af6c7b8060bcd481c63d8"),
    ("31365bce-8da9-4729-8ff3-aaa71d56b712", "a6c7b0a8a66bed0df66abfdab3c77736861703ee"),
    ("803f680d-e89b-492b-82ef-2be7b774a92d", "124f983e0e3dcaeba921cfcef46efd084576e783"),
)
IDENTITIES: tuple[Callable[[str], dict[str, Any]], ...] = (
    lambda uuid: {"uuid": uuid},
    lambda uuid: {"update_url": f"https://h/hc/api/v3/checks/{uuid}"},
    lambda uuid: {"uuid": None, "update_url": f"https://h/api/v3/checks/{uuid}/"},
    lambda uuid: {"uuid": "broken", "update_url": f"https://h/api/v3/checks/{uuid}"},
)


@pytest.mark.parametrize(("uuid", "key"), PAIRS)
@pytest.mark.parametrize("identity", IDENTITIES)
def test_the_unique_key_follows_from_the_uuid(uuid: str, key: str, identity: Callable[[str], dict[str, Any]]) -> None:
    assert Entry.model_validate({"status": "up", **identity(uuid)}).key == key


@pytest.mark.parametrize("release", ["v4.4", "v3.4", "document"])
async def test_both_kinds_of_key_give_the_same_samples(release: Any) -> None:
    clock = FakeClock(NOW)
    async with Healthchecks(release=release, clock=clock.clock.wall) as server:
        seen = []
        for key in (READ_ONLY_KEY, READ_WRITE_KEY):
            one = target(server.url, key, checks=["checks", "flips"], tag_metrics=True)
            async with prober_of(one, clock=clock.clock) as prober:
                seen.append(own(await ask(prober)))
    assert seen[0] == seen[1]
    assert len(of(seen[0], "check_info")) == len(server.checks)
    assert ("check_last_duration_seconds" in {key[0] for key in seen[0]}) == (release != "document")


@pytest.mark.parametrize("key", ["read_only", "read_write"])
async def test_the_examples_of_the_document_are_read(key: str) -> None:
    samples = own(await probe_list(*DOCUMENT[key]["checks"]))
    assert {labels[:2] for labels in of(samples, "check_info")} == {
        (PAIRS[1][1], "Filesystem Backup"),
        (PAIRS[2][1], "Database Backup"),
    }
    assert of(samples, NEXT) == {(PAIRS[1][1],): 1585062123.0}


async def test_nothing_secret_shows(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with Healthchecks() as server:
        server.extra_entries = [{"status": 7, "ping_url": "https://h/ping/secret", "uuid": str(UUID(int=5))}]
        for key in (READ_ONLY_KEY, READ_WRITE_KEY):
            outcome = await probe_once(target(server.url, key, checks=list(ALL), tag_metrics=True))
            shown = join([encode_target(outcome, 10.0, static_labels=True)], PLAIN).decode()
            shown += caplog.text + repr([record.__dict__ for record in caplog.records])
            shown += repr([report.detail for report in outcome.reports]) + repr(server.server.requests[-1].target)
            for secret in (READ_ONLY_KEY, READ_WRITE_KEY, "/ping/", "/b/2/", *(str(c.uuid) for c in server.checks)):
                assert secret not in shown
                assert secret.replace("-", "") not in shown
        asked = [request.target for request in server.server.requests]
    assert not [path for path in asked if any(str(check.uuid) in path for check in server.checks)]


# --- what is asked --------------------------------------------------------------------------------------------------


async def test_a_probe_is_one_list_call_with_the_key_and_one_of_status_without() -> None:
    async with Healthchecks(prefix="/hc") as server:
        outcome = await probe_once(target(f"{server.url}/"))
        asked = {(r.method, r.target): r.headers.get("x-api-key") for r in server.server.requests}
        assert len(server.server.requests) == 2
    assert reasons(outcome) == {"status": None, "checks": None}
    assert asked == {("GET", "/hc/api/v3/status/"): None, ("GET", "/hc/api/v3/checks/"): READ_ONLY_KEY}


TAGS: dict[str, tuple[list[str], str, int]] = {
    "one": (["prod"], "?tag=prod", 4),
    "all must match": (["prod", "backup"], "?tag=prod&tag=backup", 2),
    "none": (["pro"], "?tag=pro", 0),
    "quoted": (["a&b=c#é/"], "?tag=a%26b%3Dc%23%C3%A9%2F", 0),
}


@pytest.mark.parametrize("name", TAGS)
async def test_tags_filter_in_the_server(name: str) -> None:
    tags, query, number = TAGS[name]
    async with Healthchecks() as server:
        outcome = await probe_once(target(server.url, tags=tags, checks=["checks"]))
        assert server.server.requests[0].target == f"/api/v3/checks/{query}"
    assert sum(of(own(outcome), "checks").values()) == number


# --- the states of a server -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class State:
    """A state of a server, and the checks that fail for which reasons with a read-write key."""

    faults: dict[str, Any] = field(default_factory=dict)
    failing: dict[str, str] = field(default_factory=dict)
    target: dict[str, Any] = field(default_factory=dict)
    server: dict[str, Any] = field(default_factory=dict)
    path: str = ""


def every(reason: str, **others: str | None) -> dict[str, str]:
    return {check: why for check in ALL if (why := others.get(check, reason)) is not None}


WRONG_KEY = "x" * 32
STATES: dict[str, State] = {
    "healthy": State(),
    "without gzip": State({"gzip": False}),
    "v3.4": State(server={"release": "v3.4"}),
    "as documented": State(server={"release": "document"}),
    "below a prefix": State(server={"prefix": "/hc"}),
    "database cannot be opened": State({"database": "unopenable"}, every("http_status")),
    "database moved away": State({"database": "moved"}, every("http_status", status=None)),
    "database is garbage": State({"database": "garbage"}, every("http_status", status=None)),
    "database locked for a while": State({"database": "locked", "lock_seconds": 0}, every("http_status", status=None)),
    "database locked": State({"database": "locked"}, every("timeout", status=None), {"timeout": SHORT}),
    "a broken row": State({"broken_row": True}, {"checks": "http_status", "flips": "http_status"}),
    "the list takes too long for uWSGI": State({"harakiri": True}, {"checks": "disconnect", "flips": "disconnect"}),
    "the list takes too long for us": State(
        {"list_seconds": 5}, {"checks": "timeout", "flips": "timeout"}, {"timeout": SHORT}
    ),
    "silent": State({"silent": True}, every("timeout"), {"timeout": SHORT}),
    "login page": State({"proxy": "login_page"}, every("wrong_target")),
    "forbidden by a proxy": State({"proxy": "forbidden"}, every("auth")),
    "redirected": State({"proxy": "redirect"}, every("redirect")),
    "rate limited": State({"proxy": "rate_limit"}, every("http_status")),
    "unknown key": State({}, every("auth", status=None), {"api_key": WRONG_KEY}),
    "called by a name it does not know": State({}, every("http_status"), {"host_header": "hc.example.com"}),
    "called by a name it knows": State({}, {}, {"host_header": "hc.example.com"}, {"hosts": ["hc.example.com"]}),
    "a prefix too many": State({}, every("not_found"), path="/hc"),
    "a prefix too few": State({}, every("not_found"), {}, {"prefix": "/hc"}, "/.."),
    "answers larger than allowed": State(
        {}, every("too_large", status=None, flips="too_large"), {"max_body_size": 100}
    ),
    "more checks than allowed": State({}, {"checks": "too_large", "flips": "too_large"}, {"max_checks": 8}),
    "as many checks as allowed": State({}, {}, {"max_checks": 9}),
    "more checks than flips are asked for": State({}, {"flips": "too_large"}, {"flips": {"max_checks": 8}}),
    "as many checks as flips are asked for": State({}, {}, {"flips": {"max_checks": 9}}),
}


@pytest.mark.parametrize("name", STATES)
async def test_a_server_in_every_state(name: str) -> None:
    state = STATES[name]
    async with Healthchecks(**state.server) as server:
        for fault, value in state.faults.items():
            setattr(server.faults, fault, value)
        url = server.url.removesuffix("/hc") if state.path == "/.." else server.url + state.path
        outcome = await probe_once(
            target(**{"url": url, "key": READ_WRITE_KEY, "checks": list(ALL), **_key(state.target)})
        )
    assert reasons(outcome) == {check: state.failing.get(check) for check in ALL}


def _key(keys: dict[str, Any]) -> dict[str, Any]:
    return {"key" if name == "api_key" else name: value for name, value in keys.items()}


async def test_nothing_is_published_of_a_list_that_is_too_long() -> None:
    async with Healthchecks() as server:
        outcome = await probe_once(target(server.url, max_checks=8))
    assert own(outcome) == {}
    assert [report.detail for report in outcome.reports] == ["", "9 checks are more than max_checks"]


# check, status, body -> verdict
SHAPES: list[tuple[str, int, str, str | None]] = [
    ("status", 200, "OK", None),
    ("status", 200, "OK\n", None),
    ("status", 200, "", "wrong_target"),
    ("status", 200, "NOK", "wrong_target"),
    ("status", 403, "", "auth"),
    ("status", 401, "<html>", "wrong_target"),
    ("status", 204, "", "http_status"),
    ("checks", 200, '{"checks":[]}', None),
    ("checks", 200, '{"checks":{}}', "schema"),
    ("checks", 200, '{"checks":null}', "schema"),
    ("checks", 200, '{"error":"no"}', "schema"),
    ("checks", 200, '{"error":7}', "wrong_target"),
    ("checks", 200, "[]", "wrong_target"),
    ("checks", 200, '{"checks":[', "decode"),
    ("checks", 200, '{"checks":[{"n_pings":NaN}]}', "decode"),
    ("checks", 200, "[" * 200_000, "too_large"),
    ("checks", 200, "OK", "wrong_target"),
    ("checks", 401, "", "auth"),
    ("checks", 401, '{"error":"wrong api key"}', "auth"),
    ("checks", 401, '{"message":"Unauthorized"}', "wrong_target"),
    ("checks", 403, "<html>", "wrong_target"),
    ("checks", 421, "", "wrong_target"),
    ("checks", 429, "", "http_status"),
    ("integrations", 200, '{"channels":[]}', None),
    ("integrations", 200, '{"channels":7}', "schema"),
    ("integrations", 401, '{"error":"wrong api key"}', "auth"),
    ("flips", 200, "[]", None),
    ("flips", 200, '{"flips":[]}', None),
    ("flips", 200, '{"flips":[{"timestamp":"x","up":1}]}', None),
    ("flips", 200, '{"flips":{}}', "schema"),
    ("flips", 200, '[{"up":2}]', "schema"),
    ("flips", 200, "[7]", "schema"),
    ("flips", 200, '{"checks":[]}', "wrong_target"),
]


@pytest.mark.parametrize(("check", "status", "body", "reason"), SHAPES)
async def test_the_shape_of_an_answer(check: str, status: int, body: str, reason: str | None) -> None:
    answers = {"/flips/": Answer(status, (), body.encode()), "/checks/": ONE_CHECK}
    if check == "flips":
        outcome = await replay(answers, ("checks", "flips"))
    else:
        outcome = await replay({ENDS[check]: Answer(status, (), body.encode())}, (check,))
    assert reasons(outcome)[check] == reason


# --- checks that move through their states --------------------------------------------------------------------------


async def test_a_check_moves_through_its_states() -> None:
    clock = FakeClock(NOW)
    check = SimulatedCheck("Job", timeout=600, grace=60)
    async with (
        Healthchecks([check], clock=clock.clock.wall) as server,
        prober_of(target(server.url, checks=["checks"]), clock=clock.clock) as prober,
    ):

        async def seen() -> tuple[str | float | None, ...]:
            samples = own(await ask(prober))
            status = next(key[1] for key, number in of(samples, "check_status").items() if number)
            return (
                status,
                samples["checks_running",],
                *(samples.get((name, check.unique_key)) for name in (NEXT, DEADLINE)),
            )

        assert await seen() == ("new", 0, None, None)
        check.ping(clock.now, "start")
        assert await seen() == ("new", 1, None, NOW + 60)
        clock.advance(10)
        check.ping(clock.now)
        assert await seen() == ("up", 0, NOW + 610, NOW + 670)
        clock.advance(610)
        assert await seen() == ("grace", 0, NOW + 610, NOW + 670)
        clock.advance(60)
        assert await seen() == ("down", 0, None, None)
        check.ping(clock.now, "start")
        assert await seen() == ("down", 1, None, None)
        check.ping(clock.now)
        assert (await seen())[0] == "up"
        check.pause(clock.now)
        assert await seen() == ("paused", 0, None, None)


async def test_a_dead_alert_loop_shows_as_lag_once_a_check_is_overdue() -> None:
    clock = FakeClock(NOW)
    check, other = SimulatedCheck("Job", timeout=600, grace=60), SimulatedCheck("Other", timeout=900, grace=60)
    check.ping(NOW)
    other.ping(NOW)
    async with Healthchecks([check, other], clock=clock.clock.wall) as server:
        server.faults.sendalerts = "dead"
        async with prober_of(target(server.url, checks=["checks"]), clock=clock.clock) as prober:

            async def lag() -> float:
                return own(await ask(prober))["alerting_lag_seconds",]

            seen = []
            for seconds in (0, 650, 10, 1680, 300):
                clock.advance(seconds)
                seen.append(await lag())
            server.faults.sendalerts = "alive"
            seen.append(await lag())
    assert seen == [0, 0, 0, 1680, 1980, 0]


LAGS: dict[str, tuple[dict[str, Any], float]] = {
    "down and handled": ({"status": "down", "next_ping": None}, 0),
    "down and not handled": ({"status": "down", "next_ping": "2027-01-15T07:00:00+00:00"}, 3540),
    "late": ({"status": "grace", "next_ping": "2027-01-15T07:00:00+00:00"}, 0),
    "clocks that differ": ({"status": "down", "next_ping": "2027-01-15T08:30:00+00:00"}, 0),
    "no grace": ({"status": "down", "next_ping": "2027-01-15T07:00:00+00:00", "grace": None}, 0),
}


@pytest.mark.parametrize("name", LAGS)
async def test_the_alerting_lag(name: str) -> None:
    fields, lag = LAGS[name]
    assert own(await probe_list(entry(**{"grace": 60, **fields})))["alerting_lag_seconds",] == lag


# --- integrations ---------------------------------------------------------------------------------------------------


async def test_integrations_are_counted_by_kind() -> None:
    async with Healthchecks() as server:
        server.channels += [{"id": 7}, None, {"kind": ""}, {"kind": "sms\x00"}, {"kind": "sms\x01"}]
        outcome = await probe_once(target(server.url, READ_WRITE_KEY, checks=["integrations"]))
    assert of(own(outcome), "integrations") == {("email",): 2, ("webhook",): 1, ("unknown",): 3, ("sms�",): 2}


async def test_a_project_without_integrations_passes_and_has_no_series() -> None:
    async with Healthchecks() as server:
        server.channels = []
        outcome = await probe_once(target(server.url, READ_WRITE_KEY, checks=["integrations"]))
    assert (reasons(outcome), own(outcome)) == ({"integrations": None}, {})


async def test_with_a_read_only_key_integrations_are_left_out_and_that_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "collectors.healthchecks")
    async with Healthchecks() as server, prober_of(target(server.url, checks=["checks", "integrations"])) as prober:
        for _ in range(3):
            outcome = await ask(prober)
            assert reasons(outcome) == {"checks": None}
            assert not [key for key in samples_of(outcome) if "integrations" in key]
        # What the key may do is known by now, whatever becomes of the list; unless that refuses the key itself.
        server.faults.broken_row = True
        assert reasons(await ask(prober)) == {"checks": "http_status"}
        server.faults.broken_row = False
        server.read_only_key = WRONG_KEY
        assert reasons(await ask(prober)) == {"checks": "auth", "integrations": "auth"}
    told = [record for record in caplog.records if record.name == "collectors.healthchecks"]
    assert [record.getMessage() for record in told] == ["the check integrations is left out: the API key is read-only"]


async def test_a_changed_key_is_judged_anew(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text(READ_ONLY_KEY)
    async with Healthchecks() as server:
        one = settings("healthchecks", url=server.url, api_key_file=str(secret), checks=["checks", "integrations"])
        async with prober_of(one) as prober:
            assert reasons(await ask(prober)) == {"checks": None}
            secret.write_text(f"  {READ_WRITE_KEY}\n")
            assert reasons(await ask(prober)) == {"checks": None, "integrations": None}
            secret.write_text("short")
            assert reasons(await ask(prober)) == {"checks": None, "integrations": None}


@pytest.mark.parametrize("answer", [Answer(401, (), b"<html>"), Answer(403), Answer(500)])
async def test_any_other_failure_of_integrations_shows(answer: Answer) -> None:
    outcome = await replay({"/checks/": ONE_CHECK, "/channels/": answer}, ("checks", "integrations"))
    assert "integrations" in reasons(outcome)


# --- flips ----------------------------------------------------------------------------------------------------------


def flapping(*ups: int) -> SimulatedCheck:
    check = SimulatedCheck(f"Flapping {ups}")
    check.flips = [(NOW - 100 + number, up) for number, up in enumerate(ups)]
    return check


@pytest.mark.parametrize("release", ["v4.4", "document"])
async def test_flips_are_counted_within_the_window(release: Any) -> None:
    checks = [flapping(1, 0, 1), flapping(), flapping(0)]
    checks[0].flips.insert(0, (NOW - 4000, 1))
    async with Healthchecks(checks, release=release, clock=lambda: NOW) as server:
        outcome = await probe_once(target(server.url, checks=["checks", "flips"], flips={"window": "1h"}))
        asked = {r.target for r in server.server.requests if "flips" in r.target}
    a, b, c = (check.unique_key for check in checks)
    assert of(own(outcome), "check_flips") == {
        (a, "up"): 2, (a, "down"): 1, (b, "up"): 0, (b, "down"): 0, (c, "up"): 0, (c, "down"): 1
    }  # fmt: skip
    assert asked == {f"/api/v3/checks/{check.unique_key}/flips/?seconds=3600" for check in checks}


async def test_flips_are_remembered_for_their_interval_and_a_failure_is_asked_again() -> None:
    clock = FakeClock(NOW)
    async with (
        Healthchecks([flapping(1)], clock=clock.clock.wall) as server,
        prober_of(target(server.url, checks=["checks", "flips"]), clock=clock.clock) as prober,
    ):
        calls = []
        for seconds, broken in ((0, False), (299, True), (1, True), (1, False), (1, False)):
            clock.advance(seconds)
            server.faults.broken_row = broken
            outcome = await ask(prober)
            flips = sum("flips" in request.target for request in server.server.requests)
            calls.append((reasons(outcome)["flips"], flips, bool(of(own(outcome), "check_flips"))))
    assert calls == [
        (None, 1, True),
        (None, 1, True),
        ("http_status", 1, False),
        (None, 2, True),
        (None, 2, True),
    ]


async def test_flips_are_asked_a_few_at_a_time() -> None:
    under_way, most = 0, 0

    async def answer(request: Request) -> Reply:
        nonlocal under_way, most
        if "flips" not in request.path:
            return Answer(200, (), json.dumps({"checks": [entry(f"{n:040}") for n in range(20)]}).encode())
        under_way += 1
        most = max(most, under_way)
        for _ in range(20):
            await asyncio.sleep(0)
        under_way -= 1
        return Answer(200, (), b"[]")

    async with Server(answer) as server:
        outcome = await probe_once(target(f"http://127.0.0.1:{server.port}", checks=["checks", "flips"]))
        assert len(server.requests) == 21
    assert reasons(outcome) == {"checks": None, "flips": None}
    assert 1 < most <= 4


# The answer of the second of three checks, and: verdict, and how many of the three are published
ONE_OF_THREE: dict[str, tuple[Reply, str, set[int]]] = {
    "deleted meanwhile": (Answer(404), "not_found", {2}),
    "unreadable": (Answer(200, (), b'{"flips":[{"up":"no"}]}'), "schema", {2}),
    "refused": (Answer(401, (), b'{"error":"wrong api key"}'), "auth", {0, 1, 2}),
    "broken": (Answer(500, (), b"<html>"), "http_status", {0, 1, 2}),
}


@pytest.mark.parametrize("name", ONE_OF_THREE)
async def test_flips_of_one_check_that_cannot_be_had(name: str) -> None:
    reply, reason, published = ONE_OF_THREE[name]

    def answer(request: Request) -> Reply:
        if "flips" not in request.path:
            return Answer(200, (), json.dumps({"checks": [entry(x * 40) for x in "abc"]}).encode())
        return reply if "bbb" in request.path else Answer(200, (), b'[{"up":1}]')

    async with Server(answer) as server:
        outcome = await probe_once(target(f"http://127.0.0.1:{server.port}", checks=["checks", "flips"]))
    assert reasons(outcome) == {"checks": None, "flips": reason}
    flips = of(own(outcome), "check_flips")
    assert len(flips) // 2 in published
    assert ("b" * 40, "up") not in flips


async def test_flips_that_wait_for_a_slow_list_neither_ask_nor_disturb_it() -> None:
    gate = asyncio.Event()

    async def answer(request: Request) -> Reply:
        if "flips" in request.path:
            return Answer(200, (), b"[]")
        await gate.wait()
        return ONE_CHECK

    async with Server(answer) as server:
        one = target(f"http://127.0.0.1:{server.port}", checks=["checks", "flips"], timeout=5)
        async with prober_of(one) as prober:
            probing = asyncio.create_task(ask(prober))
            early = await ask(prober, SHORT)
            gate.set()
            outcome = await probing
    assert reasons(early) == {"checks": "timeout", "flips": "timeout"}
    assert reasons(outcome) == {"checks": None, "flips": None}


async def test_flips_that_give_up_waiting_leave_the_list_alone() -> None:
    async with Healthchecks() as server:
        one = target(server.url, checks=["checks", "flips"])
        client = HttpClient("tests", Clock())
        async with client.probe(one, contexts_of(one)[one.tls_config]) as http:
            collector = Collector(cast(Settings, one), Collector.new_memory(), http, client.clock)
            waiting = asyncio.create_task(collector.flips(CheckReport("flips")))
            await asyncio.sleep(0)
            waiting.cancel()
            report = CheckReport("checks")
            await collector.list_checks(report)
    assert waiting.cancelled()
    assert report.samples


async def test_hostile_keys_are_asked_for_as_they_are() -> None:
    keys = ["../../status", "a b?c#d", "\ud800", "é\x00\n"]

    def answer(request: Request) -> Reply:
        if "flips" not in request.path:
            return Answer(200, (), json.dumps({"checks": [entry(key) for key in keys]}).encode())
        return Answer(200, (), b"[]")

    async with Server(answer) as server:
        outcome = await probe_once(target(f"http://127.0.0.1:{server.port}", checks=["checks", "flips"]))
        asked = {request.path for request in server.requests if "flips" in request.path}
    assert reasons(outcome) == {"checks": None, "flips": None}
    assert asked == {
        f"/api/v3/checks/{key}/flips/" for key in ("..%2F..%2Fstatus", "a%20b%3Fc%23d", "%3F", "%C3%A9%00%0A")
    }


# --- tags -----------------------------------------------------------------------------------------------------------


async def test_checks_are_counted_by_tag() -> None:
    outcome = await probe_list(
        entry("1" * 40, tags="  x  x   y\tz "),
        entry("2" * 40, tags="x", status="down"),
        entry("3" * 40, tags="t\x00 t\x01"),
        entry("4" * 40, tags=None),
        tag_metrics=True,
    )
    tagged = of(own(outcome), "tag_checks")
    assert {key: number for key, number in tagged.items() if number} == {
        ("x", "up"): 1, ("x", "down"): 1, ("y�z", "up"): 1, ("t�", "up"): 1
    }  # fmt: skip
    assert len(tagged) == 3 * len(STATUSES)


@pytest.mark.parametrize(("number", "reason"), [(1000, None), (1001, "too_large")])
async def test_a_thousand_tags_are_the_most(number: int, reason: str | None) -> None:
    outcome = await probe_list(entry(tags=" ".join(f"t{n}" for n in range(number))), tag_metrics=True)
    assert reasons(outcome) == {"checks": reason}
    assert own(outcome)["checks", "up"] == 1
    assert len(of(own(outcome), "check_status")) == len(STATUSES)


async def test_without_tag_metrics_no_tag_is_a_label() -> None:
    assert not of(own(await probe_list(entry(tags="a b"))), "tag_checks")


# --- settings -------------------------------------------------------------------------------------------------------

URL = "http://127.0.0.1:8000"
GOOD: dict[str, Any] = {"name": "t", "collector": "healthchecks", "url": URL, "api_key": READ_ONLY_KEY}
SECRET = "s3cret-" * 5
MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "a short key": ({"api_key": SECRET[:31]}, "32 characters"),
    "a long key": ({"api_key": SECRET[:33]}, "32 characters"),
    "a key with a space inside": ({"api_key": SECRET[:15] + " " + SECRET[:16]}, "32 characters"),
    "a key that is not ASCII": ({"api_key": "é" * 32}, "32 characters"),
    "an empty tag": ({"tags": [""]}, "not empty"),
    "a tag with a space": ({"tags": ["a b"]}, "no space"),
    "a tag that is no Unicode": ({"tags": ["\ud800"]}, "cannot be sent"),
    "no checks": ({"checks": []}, "must not be empty"),
    "a check twice": ({"checks": ["checks", "checks"]}, "twice"),
    "an unknown check": ({"checks": ["pings"]}, "Input should be"),
    "no checks allowed": ({"max_checks": 0}, "greater than or equal to 1"),
    "a word nobody knows": ({"status_samples": "some"}, "Input should be"),
    "a window of nothing": ({"flips": {"window": 0}}, "more than 0"),
    "a window of half a second": ({"flips": {"window": "1500ms"}}, "whole seconds"),
    "a window of two years": ({"flips": {"window": "730d"}}, "whole seconds"),
    "an unknown key of flips": ({"flips": {"windw": 1}}, "Extra inputs"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_the_config_is_an_error_that_shows_no_key(name: str) -> None:
    keys, words = MISTAKES[name]
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({**GOOD, **keys})
    assert words in str(caught.value)
    assert "s3cret" not in str(caught.value)


RULES: dict[str, tuple[dict[str, Any], list[tuple[str, str]]]] = {
    "right": ({}, []),
    "no key": ({"api_key": None}, [("", "give api_key or api_key_file")]),
    "two keys": ({"api_key_file": "x"}, [("api_key_file", "give only one of api_key and api_key_file")]),
    "flips without the list": ({"checks": ["status", "flips"]}, [("checks", "the check flips needs the check checks")]),
    "the header of the key": ({"headers": {"x-api-key": "a"}}, [("headers", "X-Api-Key cannot be set here")]),
    "the same from a file": ({"header_files": {"X-API-Key": "a"}}, [("header_files", "X-Api-Key cannot be set here")]),
    "another header": ({"headers": {"X-Tenant": "a"}}, []),
}


@pytest.mark.parametrize("name", RULES)
def test_rules_between_keys(name: str) -> None:
    keys, expected = RULES[name]
    found = list(Settings.rules({**GOOD, **keys}))
    assert [key for key, _ in found] == [key for key, _ in expected]
    for (_, said), (_, words) in zip(found, expected, strict=True):
        assert words in said


def test_defaults() -> None:
    plain = Settings.model_validate(GOOD)
    assert (plain.check_names(), plain.max_body_size, plain.max_checks) == (("status", "checks"), 64 * 2**20, 20_000)
    assert (plain.flips.window, plain.flips.interval, plain.flips.max_checks) == (86_400, 300, 50)
    assert plain.sent_secret_keys() == ("api_key",)
    ordered = Settings.model_validate({**GOOD, "checks": ["flips", "checks", "status"]})
    assert ordered.check_names() == ("status", "checks", "flips")


@pytest.mark.parametrize("key", [READ_WRITE_KEY, f"  {READ_ONLY_KEY} ", "abcdefghijklmnopqrstuvwxyz012345"])
def test_every_kind_of_key_is_taken(key: str) -> None:
    assert Settings.model_validate({**GOOD, "api_key": key}).key == key.strip()
    assert READ_WRITE_KEY not in repr(Settings.model_validate({**GOOD, "api_key": key}))


def test_a_key_file_that_becomes_wrong_keeps_the_last_good_key(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text(f"{READ_ONLY_KEY}\n")
    written = {**GOOD, "api_key": None, "api_key_file": str(secret)}
    one = Settings.model_validate({key: value for key, value in written.items() if value is not None})
    assert one.api_key_file is not None
    secret.write_text("s3cret")
    problem = one.api_key_file.refresh()
    assert problem is not None
    assert "32 characters" in problem
    assert "s3cret" not in problem
    assert one.key == READ_ONLY_KEY


# --- any reply at all -----------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from(sorted(Entry.model_fields))
entries = st.lists(
    json_values
    | st.dictionaries(fields, json_values | st.sampled_from([T1, "up", "a" * 40, 5, str(UUID(int=9))])).map(
        lambda given: {"status": "up", **given}
    ),
    max_size=6,
)


@given(entries)
def test_any_entries_are_read_or_counted(raw: list[Any]) -> None:
    listing = read_list(json.loads(json.dumps(raw)), Settings.model_validate({**GOOD, "tag_metrics": True}), NOW)
    assert len(listing.keys) + listing.skipped.total() == len(raw)
    assert set(listing.skipped) <= set(CAUSES)
    assert listing.statuses.total() == len(listing.keys)
    assert listing.lag >= 0
    assert all(abs(sample.number) < float("inf") for sample in listing.report.samples.values())


@given(
    st.binary(max_size=200) | json_values.map(lambda v: json.dumps({"checks": v, "channels": v, "flips": v}).encode())
)
@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_bytes_end_as_a_verdict(body: bytes) -> None:
    async def probe() -> Outcome:
        answers = {end: Answer(200, (), body) for end in ENDS.values()}
        return await replay(answers, ALL)

    outcome = asyncio.run(probe())
    assert "internal" not in reasons(outcome).values()
    join([encode_target(outcome, 10.0, static_labels=True)], PLAIN)


async def test_a_server_that_hangs_in_flips_leaves_the_list_as_it_is() -> None:
    def answer(request: Request) -> Reply:
        return Hang() if "flips" in request.path else ONE_CHECK

    async with Server(answer) as server:
        one = target(f"http://127.0.0.1:{server.port}", checks=["checks", "flips"], timeout=SHORT)
        outcome = await probe_once(one)
    assert reasons(outcome) == {"checks": None, "flips": "timeout"}
    assert own(outcome)["checks", "up"] == 1


# --- golden files ---------------------------------------------------------------------------------------------------

FLEETING = re.compile(
    r"^(probe_duration_seconds|probe_check_duration_seconds|probe_check_http_duration_seconds)(\{.*\}) \S+$",
    re.MULTILINE,
)


@pytest.mark.parametrize("name", ["healthchecks_healthy", "healthchecks_failing", "healthchecks_hostile"])
async def test_the_exposition_of_a_target_is_the_golden_one(name: str, update_golden: bool) -> None:
    clock = FakeClock(NOW)
    checks = hostile_checks() if name == "healthchecks_hostile" else example_checks(NOW)
    async with Healthchecks(checks, clock=clock.clock.wall) as server:
        server.faults.gzip = False
        if name == "healthchecks_failing":
            server.faults.broken_row = True
        one = settings(
            "healthchecks", name="cron-prod", url=server.url, api_key=READ_WRITE_KEY, checks=list(ALL), tag_metrics=True
        )
        async with prober_of(one, clock=clock.clock) as prober:
            outcome = await prober.probe("cron-prod", Budget.starting_now(9.5))
    text = join([encode_target(outcome, 9.5, static_labels=True)], PLAIN).decode()
    # Flips are asked at once: which of them is written first is chance.
    head, *rest = text.split("# HELP healthchecks_check_flips ")
    if rest:
        first, _, flips = rest[0].partition("# TYPE")
        flips_type, *lines = flips.splitlines()
        rest = [f"{first}# TYPE{flips_type}\n" + "".join(f"{line}\n" for line in sorted(lines))]
    text = "# HELP healthchecks_check_flips ".join([head, *rest])
    text = FLEETING.sub(r"\1\2 1.0", text).replace(server.url, "http://127.0.0.1:8000")
    path = HERE / "golden" / f"{name}.prom"
    if update_golden:
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def test_every_metric_of_the_table_is_in_a_golden_file() -> None:
    text = (HERE / "golden" / "healthchecks_healthy.prom").read_text(encoding="utf-8")
    assert {metric.name for metric in Collector.metrics} <= {key[0] for key in read(text)}
