"""The Pryv collector against the simulator: what every state of a deployment looks like, and what is asked of it."""

import asyncio
import contextlib
import hashlib
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
import trustme
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError
from yarl import URL

import collectors.http
from collectors.pryv import Account, Settings, parse_api_endpoint
from health_exporter.outcome import Outcome
from health_exporter.prober import Budget, Prober
from health_exporter.simulators.dns import DnsServer, Mode
from health_exporter.simulators.pryv import PryvCore, PryvDeployment
from health_exporter.simulators.wire import Answer, Close, Hang, Raw, Reply, Request, Reset, Server
from tests.support import FakeClock, probe_once, prober_of, pryv, reasons, samples_of, settings

SINGLE = ("registration", "platform", "storage", "hfs", "series", "service_info", "access")
MULTI = ("dns", *SINGLE)
WITH_TOKEN = ("storage", "series", "access")
SHORT = 0.3
"""The timeout of probes in which something never answers."""
ALWAYS_ASK: dict[str, Any] = {"storage_interval": 0, "access_interval": 0, "auth_backoff": 0}

Reasons = dict[str, str | None]


def expected(checks: tuple[str, ...], failing: dict[str, str]) -> Reasons:
    assert set(failing) <= set(checks)
    return {check: failing.get(check) for check in checks}


def every(reason: str, checks: tuple[str, ...] = SINGLE, **others: str | None) -> dict[str, str]:
    """Return the same reason for all checks but `others`."""
    return {check: why for check in checks if (why := others.get(check, reason)) is not None}


def of_pryv(outcome: Outcome) -> dict[tuple[str, ...], float]:
    """Return the samples of Pryv's own metrics, without the clock skew."""
    samples = samples_of(outcome)
    return {k: number for k, number in samples.items() if k[0].startswith("pryv") and k[0] != "pryv_clock_skew_seconds"}


async def ask(prober: Prober, seconds: float = 5.0) -> Outcome:
    return await prober.probe("t", Budget.starting_now(seconds))


def token_of(request: Request) -> str | None:
    return request.headers.get("authorization")


def audited(core: PryvCore) -> int:
    """Return how many requests so far have cost the server an audit row."""
    return sum(r.path.endswith(("/events", "/access-info")) for r in core.server.requests)


def lookups(monkeypatch: pytest.MonkeyPatch, names: dict[str, str]) -> None:
    """Let the system's resolver know these names only."""

    def getaddrinfo(host: str, _: int) -> list[tuple[str, int]] | OSError:
        if host in names:
            return [(names[host], socket.AF_INET)]
        return socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(collectors.http, "_getaddrinfo", getaddrinfo)


# --- the states of a single core ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class State:
    """A state of a deployment: how it comes about, and which checks fail for which reasons."""

    faults: dict[str, Any] = field(default_factory=dict)
    failing: dict[str, str] = field(default_factory=dict)
    warm: bool = True
    """Whether the worker has seen the account before the state begins."""
    target: dict[str, Any] = field(default_factory=dict)
    setup: Callable[[PryvCore], None] | None = None
    left_out: tuple[str, ...] = ()
    asked: str = "core-a"
    """Of several cores, the one that is asked about the account of core-a."""
    dns: Mode = "up"
    records: dict[str, list[str]] = field(default_factory=dict)


STORAGE_DOWN = {"storage": "http_status", "series": "http_status", "access": "http_status"}
STORAGE_SILENT = {"storage": "timeout", "series": "timeout", "access": "timeout"}
NO_ACCOUNT = {"registration": "not_found", "storage": "not_found", "series": "not_found", "access": "not_found"}


def hfs_restarted(core: PryvCore) -> None:
    core.restart_hfs()


SINGLE_STATES: dict[str, State] = {
    "healthy": State(),
    "just started": State(warm=False),
    # PostgreSQL; the hostings of a single core are read from it as well.
    "database refuses": State({"postgres": "refused"}, {**STORAGE_DOWN, "platform": "http_status"}),
    "database refuses, worker just restarted": State(
        {"postgres": "refused"},
        {**STORAGE_DOWN, "platform": "http_status", "registration": "http_status"},
        warm=False,
    ),
    "database frozen": State({"postgres": "frozen"}, {**STORAGE_SILENT, "platform": "timeout"}),
    "database frozen, worker just restarted": State(
        {"postgres": "frozen"}, {**STORAGE_SILENT, "platform": "timeout", "registration": "timeout"}, warm=False
    ),
    "events table broken": State({"events_table": "broken"}, {"storage": "http_status"}),
    "events table locked for longer than a check": State({"events_table": "locked"}, {"storage": "timeout"}),
    "events table locked for a moment": State({"events_table": "locked", "lock_seconds": 0.05}),
    "events table broken, token without permissions": State({"events_table": "broken", "token_level": "none"}),
    "events table broken, personal token": State({"events_table": "broken", "personal_token": True}),
    "audit table broken": State({"audit": "broken"}),
    # The platform database, which none of the guide's checks reads.
    "platform refuses": State({"platform": "refused"}, {"platform": "http_status"}),
    "platform hangs": State({"platform": "hanging"}, {"platform": "timeout"}),
    # The API worker.
    "API worker dead": State({"api_worker": "dead"}, every("connect")),
    "API worker dead behind a proxy": State(
        {"api_worker": "dead", "proxy": "nginx"}, every("http_status", hfs=None, series=None)
    ),
    "API worker frozen": State({"api_worker": "frozen"}, every("timeout", hfs=None, series=None)),
    # The HFS worker.
    "HFS worker dead": State({"hfs_worker": "dead"}, {"hfs": "http_status", "series": "http_status"}),
    "HFS worker dead behind a proxy": State(
        {"hfs_worker": "dead", "proxy": "nginx"}, {"hfs": "http_status", "series": "http_status"}
    ),
    "HFS worker frozen": State({"hfs_worker": "frozen"}, {"hfs": "timeout", "series": "timeout"}),
    "HFS worker frozen behind a proxy": State(
        {"hfs_worker": "frozen", "proxy": "nginx"}, {"hfs": "http_status", "series": "http_status"}
    ),
    "HFS worker stuck": State({"hfs_worker": "stuck"}, {"series": "timeout"}),
    "HFS worker off": State({"hfs_worker": "off"}, left_out=("hfs", "series")),
    "host name taken for a user by the HFS": State(
        {}, {"series": "wrong_target"}, target={"host_header": "pryvhost.a.b"}
    ),
    "host name too short for a user": State(target={"host_header": "api.example.com"}),
    "host name with the account as its first label": State(target={"host_header": "healthmetrics01.example.com"}),
    "series answered by the API worker": State({"hfs_routing": "api"}, {"series": "wrong_target"}),
    # The account and its token.
    "account deleted": State({"account": "deleted"}, NO_ACCOUNT),
    "account never there": State({}, NO_ACCOUNT, target={"username": "nosuchuser01"}),
    "token revoked, still known to the HFS": State({"token": "revoked"}, {"storage": "auth", "access": "auth"}),
    "token revoked, HFS restarted": State(
        {"token": "revoked"}, {"storage": "auth", "access": "auth", "series": "auth"}, setup=hfs_restarted
    ),
    "token expired": State({"token": "expired"}, {"storage": "auth", "access": "auth", "series": "auth"}),
    "token wrong": State({}, {"storage": "auth", "access": "auth", "series": "auth"}, target={"token": "wrong-token"}),
    "personal token": State({"personal_token": True}),
    "token that may manage": State({"token_level": "manage"}),
    "token without permissions": State({"token_level": "none"}),
    "token that expires": State({"token_expires": 4_000_000_000.0}),
    # What stands before the core.
    "login page": State({"proxy": "login_page"}, every("wrong_target")),
    "everything redirected": State({"proxy": "redirect"}, every("redirect")),
    # A 4xx passes the guide's HFS check, whatever it is.
    "rate limited": State({"proxy": "rate_limit"}, every("http_status", hfs=None)),
    "garbage": State({"proxy": "garbage"}, every("decode", hfs=None)),
    "reset in the middle of the answer": State({"reset_mid_answer": True}, every("disconnect")),
    "answers larger than allowed": State(target={"max_body_size": 20}, failing=every("too_large", hfs=None)),
    "clock wrong": State({"clock_offset": -86400.0}),
}


async def verdicts(core: PryvCore, state: State, **keys: Any) -> Reasons:
    """Bring about a state and return the verdicts of the checks."""
    if state.warm:
        warm = settings(url=core.url, username=core.username, token=core.token, checks=["registration"])
        assert reasons(await probe_once(warm)) == {"registration": None}
    for name, value in state.faults.items():
        setattr(core.faults, name, value)
    if state.setup:
        state.setup(core)
    patience = SHORT if "timeout" in state.failing.values() else 5
    target = {"url": core.url, "username": core.username, "token": core.token, "timeout": patience, **ALWAYS_ASK}
    target |= {**keys, **state.target}
    return reasons(await probe_once(settings(**target)))


@pytest.mark.parametrize("name", SINGLE_STATES)
async def test_a_single_core_in_every_state(name: str) -> None:
    state = SINGLE_STATES[name]
    async with PryvCore() as core:
        seen = await verdicts(core, state)
    assert seen == expected(tuple(check for check in SINGLE if check not in state.left_out), state.failing)


# --- the states of several cores ------------------------------------------------------------------------------------

PLATFORM_DOWN = {"platform": "http_status", "storage": "http_status", "access": "http_status", "series": "timeout"}
PLATFORM_SILENT = dict.fromkeys(("platform", "storage", "access", "series", "dns"), "timeout")
WRONG_CORE = {
    "storage": "wrong_target",
    "access": "wrong_target",
    "registration": "not_found",
    "series": "not_found",
    "dns": "unhealthy",
}

MULTI_STATES: dict[str, State] = {
    "healthy": State(),
    "just started": State(warm=False),
    "database refuses": State({"postgres": "refused"}, STORAGE_DOWN),
    "database refuses, worker just restarted": State(
        {"postgres": "refused"}, {**STORAGE_DOWN, "registration": "http_status"}, warm=False
    ),
    "database frozen": State({"postgres": "frozen"}, STORAGE_SILENT),
    "events table broken": State({"events_table": "broken"}, {"storage": "http_status"}),
    # DNS answers NXDOMAIN for every name when the platform refuses, and nothing when it hangs.
    "platform refuses": State({"platform": "refused"}, {**PLATFORM_DOWN, "dns": "dns"}, dns="nxdomain"),
    "platform hangs": State({"platform": "hanging"}, PLATFORM_SILENT, dns="silent"),
    # DNS never drops a dead core.
    "core dead": State({"api_worker": "dead"}, every("connect")),
    "API worker frozen": State({"api_worker": "frozen"}, every("timeout", hfs=None, series=None)),
    "HFS worker dead": State({"hfs_worker": "dead"}, {"hfs": "http_status", "series": "http_status"}),
    "HFS worker stuck": State({"hfs_worker": "stuck"}, {"series": "timeout"}),
    "HFS worker off": State({"hfs_worker": "off"}, left_out=("hfs", "series")),
    "series answered by the API worker": State({"hfs_routing": "api"}, {"series": "wrong_target"}),
    "account of another core": State({}, WRONG_CORE, warm=False, asked="core-b"),
    # A name that is gone with its account.
    "account deleted": State({"account": "deleted"}, {**NO_ACCOUNT, "dns": "dns"}),
    "token revoked": State(
        {"token": "revoked"}, {"storage": "auth", "access": "auth", "series": "auth"}, setup=hfs_restarted
    ),
    "token expired": State({"token": "expired"}, {"storage": "auth", "access": "auth", "series": "auth"}),
    "login page": State({"proxy": "login_page"}, every("wrong_target")),
    "everything redirected": State({"proxy": "redirect"}, every("redirect")),
    # DNS alone.
    "name missing": State(failing={"dns": "dns"}, dns="nxdomain"),
    "name without address": State(failing={"dns": "dns"}, dns="empty"),
    "name server in trouble": State(failing={"dns": "dns"}, dns="servfail"),
    "name server not answering for the zone": State(failing={"dns": "dns"}, dns="refused"),
    "name server silent": State(failing={"dns": "timeout"}, dns="silent"),
    "name server sends garbage": State(failing={"dns": "timeout"}, dns="garbage"),
    "name server cuts its answer short": State(failing={"dns": "dns"}, dns="truncated"),
    "name is an alias": State(dns="cname"),
    "name of another address": State(failing={"dns": "unhealthy"}, records={"usera01": ["127.0.0.9"]}),
    "one address of two not expected": State(
        failing={"dns": "unhealthy"}, records={"usera01": ["127.0.0.1", "127.0.0.9"]}
    ),
    "other addresses expected": State(
        records={"usera01": ["192.0.2.10", "192.0.2.11"]},
        target={"dns": {"expect": ["192.0.2.10", "192.0.2.11", "192.0.2.12"]}},
    ),
    "core's own address not expected": State(failing={"dns": "unhealthy"}, target={"dns": {"expect": ["192.0.2.10"]}}),
}


@contextlib.asynccontextmanager
async def two_cores() -> AsyncIterator[tuple[PryvDeployment, DnsServer]]:
    async with PryvDeployment() as deployment, DnsServer(deployment.domain, deployment.records()) as names:
        yield deployment, names


def domain_form(deployment: PryvDeployment, names: DnsServer, asked: str = "core-a", **keys: Any) -> dict[str, Any]:
    """Return the settings of a target for the account of core-a, asked of a core."""
    home = deployment.cores["core-a"]
    return {
        "url": deployment.cores[asked].url,
        "domain": deployment.domain,
        "username": home.username,
        "token": home.token,
        **keys,
        "dns": {"nameservers": [f"127.0.0.1:{names.port}"], **keys.get("dns", {})},
    }


@pytest.mark.parametrize("name", MULTI_STATES)
async def test_one_of_several_cores_in_every_state(name: str) -> None:
    state = MULTI_STATES[name]
    async with two_cores() as (deployment, names):
        if state.faults.get("account") == "deleted":
            del names.records["usera01"]
        names.records |= state.records
        names.mode = state.dns
        keys = domain_form(deployment, names, state.asked, **state.target)
        seen = await verdicts(deployment.cores["core-a"], replace(state, target={}), **keys)
    assert seen == expected(tuple(check for check in MULTI if check not in state.left_out), state.failing)


async def test_a_dead_core_costs_the_other_nothing() -> None:
    async with two_cores() as (deployment, names):
        deployment.cores["core-b"].faults.api_worker = "dead"
        outcome = await probe_once(settings(**domain_form(deployment, names)))
    assert reasons(outcome) == expected(MULTI, {})


async def test_a_dead_name_server_is_a_refused_connection() -> None:
    async with two_cores() as (deployment, names):
        await names.stop()
        outcome = await probe_once(settings(**domain_form(deployment, names)))
    assert reasons(outcome) == expected(MULTI, {"dns": "connect"})


async def test_the_path_form_under_the_name_of_a_core_is_taken_for_a_user_by_the_hfs() -> None:
    async with two_cores() as (deployment, _):
        home = deployment.cores["core-a"]
        target = pryv(home.url, username=home.username, token=home.token, host_header="core-a.pryv.test")
        outcome = await probe_once(target)
    assert reasons(outcome) == expected(SINGLE, {"series": "wrong_target"})


async def test_a_path_form_target_is_not_asked_about_dns_even_if_the_account_has_a_name() -> None:
    async with two_cores() as (deployment, names):
        home = deployment.cores["core-a"]
        outcome = await probe_once(pryv(home.url, username=home.username, token=home.token))
    assert reasons(outcome) == expected(SINGLE, {})
    assert not names.queries


# --- states that have a history -------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", ["postgres", "platform"])
async def test_an_hfs_worker_that_met_a_dead_database_hangs_until_it_is_restarted(broken: str) -> None:
    async with two_cores() as (deployment, names):
        home = deployment.cores["core-a"]
        target = settings(**domain_form(deployment, names, timeout=SHORT, checks=["hfs", "series"], **ALWAYS_ASK))
        async with prober_of(target) as prober:
            home.restart_hfs()
            setattr(home.faults, broken, "refused")
            first = reasons(await ask(prober))
            setattr(home.faults, broken, "up")
            second, third = reasons(await ask(prober)), reasons(await ask(prober))
            home.restart_hfs()
            healed = reasons(await ask(prober))

    assert first == {"hfs": None, "series": "http_status" if broken == "postgres" else "timeout"}
    assert second == third == {"hfs": None, "series": "timeout"}
    assert healed == {"hfs": None, "series": None}


async def test_one_of_two_frozen_workers_costs_one_fresh_connection_of_twelve() -> None:
    async with PryvCore() as core, prober_of(pryv(core.url, checks=["platform"], timeout=SHORT)) as prober:
        core.faults.api_worker = "one_of_two_frozen"
        seen = [reasons(await ask(prober))["platform"] for _ in range(13)]
    assert seen.count("timeout") == 1
    assert set(seen) == {None, "timeout"}


async def test_a_refused_token_kills_a_worker_with_a_broken_audit_store() -> None:
    async with PryvCore() as core, prober_of(pryv(core.url, checks=["storage"])) as prober:
        core.faults.audit, core.faults.token = "broken", "revoked"
        assert reasons(await ask(prober)) == {"storage": "disconnect"}
        assert reasons(await ask(prober)) == {"storage": "connect"}


async def test_a_token_known_to_be_refused_kills_no_worker() -> None:
    async with PryvCore() as core, prober_of(pryv(core.url)) as prober:
        core.faults.token = "revoked"
        await ask(prober)
        core.faults.audit = "broken"
        seen = reasons(await ask(prober))
    assert seen == expected(SINGLE, dict.fromkeys(WITH_TOKEN, "auth"))


async def test_an_account_deleted_while_watched_is_seen_at_the_next_probe() -> None:
    async with PryvCore() as core, prober_of(pryv(core.url, **ALWAYS_ASK)) as prober:
        assert reasons(await ask(prober)) == expected(SINGLE, {})
        core.faults.account = "deleted"
        assert reasons(await ask(prober)) == expected(SINGLE, NO_ACCOUNT)


# --- faults of any target -------------------------------------------------------------------------------------------

HTML = (("Content-Type", "text/html"),)
ERROR = b'{"error":{"id":"unexpected-error","message":"x"},"meta":{"apiVersion":"2"}}'
ANSWERS: dict[str, tuple[Reply, dict[str, str]]] = {
    "accepts and says nothing": (Hang(), every("timeout")),
    "closes without a byte": (Close(), every("disconnect")),
    "resets": (Reset(), every("disconnect")),
    "begins and says no more": (Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", Hang()), every("timeout")),
    "ends before its length": (Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"), every("disconnect")),
    "speaks no HTTP": (Raw(b"SSH-2.0-OpenSSH_9.2\r\n"), every("disconnect")),
    "500 of the API": (Answer(500, (), ERROR), every("http_status")),
    "503 of a proxy": (Answer(503, HTML, b"<html>"), every("http_status")),
    # The guide's HFS check passes on any 4xx.
    "400 for the host name": (Answer(400, HTML, b"<html>Bad Request"), every("http_status", hfs=None)),
    "421": (Answer(421, (), b""), every("wrong_target")),
    "404 of a proxy": (Answer(404, HTML, b"<html>"), every("not_found", hfs=None)),
    "401 of a proxy": (Answer(401, HTML, b"<html>"), every("wrong_target", hfs=None)),
    "403 without a body": (Answer(403), every("auth", hfs=None)),
    "403 of another API": (Answer(403, (), b'{"detail":"no"}'), every("wrong_target", hfs=None)),
    "JSON of another API": (Answer(200, (), b'{"status":"ok"}'), every("wrong_target", hfs=None)),
    "greeting": (Answer(200, (), b'{"meta":{},"cheersFrom":"Pryv API"}'), every("wrong_target")),
    "greeting as text": (Answer(200, HTML, b"# Cheers from the Pryv API!"), every("wrong_target")),
    "a bare number": (Answer(200, (), b"7"), every("wrong_target", hfs=None)),
    "a redirect to itself": (Answer(308, (("Location", "/"),), b""), every("redirect")),
    # An answer of the API worker where the HFS worker's is due, with 200.
    "another call of the API": (
        Answer(200, (), b'{"meta":{}}'),
        {**every("schema", hfs=None, service_info=None), "series": "wrong_target"},
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_a_server_with_one_answer_for_everything(name: str) -> None:
    answer, failing = ANSWERS[name]
    async with Server(lambda _: answer) as server:
        patience = SHORT if "timeout" in failing.values() else 5
        outcome = await probe_once(pryv(f"http://127.0.0.1:{server.port}", timeout=patience))
    assert reasons(outcome) == expected(SINGLE, failing)


async def test_a_closed_port_is_a_refused_connection_for_every_check() -> None:
    async with Server(lambda _: Hang()) as server:
        await server.refuse()
        outcome = await probe_once(pryv(f"http://127.0.0.1:{server.port}"))
    assert reasons(outcome) == expected(SINGLE, every("connect"))


async def test_a_host_without_address_fails_every_http_check_for_dns(monkeypatch: pytest.MonkeyPatch) -> None:
    lookups(monkeypatch, {})
    outcome = await probe_once(pryv("http://core.test"))
    assert reasons(outcome) == expected(SINGLE, every("dns"))


async def test_a_core_without_address_leaves_nothing_to_compare_the_answers_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lookups(monkeypatch, {})
    async with two_cores() as (deployment, names):
        keys = domain_form(deployment, names, checks=["dns"])
        outcome = await probe_once(settings(**{**keys, "url": "http://core.test"}))
    assert reasons(outcome) == {"dns": "dns"}


async def test_the_answers_are_compared_with_the_addresses_of_the_core(monkeypatch: pytest.MonkeyPatch) -> None:
    lookups(monkeypatch, {"right.test": "127.0.0.1", "wrong.test": "127.0.0.2"})
    async with two_cores() as (deployment, names):
        keys = domain_form(deployment, names, checks=["dns"])
        seen = {
            host: reasons(await probe_once(settings(**{**keys, "url": f"http://{host}"})))["dns"]
            for host in ("right.test", "wrong.test", "[::1]")
        }
    # Only A records are asked, so that an IPv6 address has nothing to say about them.
    assert seen == {"right.test": None, "wrong.test": "unhealthy", "[::1]": None}


# url, register_url, and what fails because of them
MISTAKEN_URLS: dict[str, tuple[str, str | None, dict[str, str]]] = {
    "a path too many": (
        "/pryv",
        None,
        every("not_found", hfs=None, series="wrong_target"),  # no path of a series: it never gets to the HFS
    ),
    "registration without /reg": (
        "",
        "",
        {"registration": "not_found", "platform": "wrong_target", "service_info": "not_found"},
    ),
    "a slash too many": ("/", "/reg/", {}),
}


@pytest.mark.parametrize("name", MISTAKEN_URLS)
async def test_mistaken_urls(name: str) -> None:
    path, register, failing = MISTAKEN_URLS[name]
    async with PryvCore() as core:
        keys = {} if register is None else {"register_url": core.url + register}
        outcome = await probe_once(pryv(core.url + path, **keys))
    assert reasons(outcome) == expected(SINGLE, failing)


# check, status, body -> verdict
SHAPES: list[tuple[str, int, str, str | None]] = [
    ("registration", 200, '{"reserved":true}', None),
    ("registration", 200, '{"meta":{},"reserved":true}', None),
    ("registration", 200, '{"meta":{},"reserved":false}', "not_found"),
    ("registration", 200, '{"meta":{},"reserved":"true"}', "schema"),
    ("registration", 200, '{"meta":{},"reserved":1}', "schema"),
    ("registration", 200, '{"meta":{}}', "schema"),
    ("registration", 200, '{"meta":{"serverTime":"now"},"reserved":true}', "schema"),
    ("registration", 200, '{"meta":null,"reserved":true}', None),
    ("registration", 200, '["reserved"]', "wrong_target"),
    ("registration", 200, '{"meta":{},"reserved":tru', "decode"),
    ("registration", 200, "", "wrong_target"),
    ("registration", 200, "true story", "wrong_target"),
    ("registration", 201, '{"meta":{},"reserved":true}', "http_status"),
    ("platform", 200, '{"meta":{},"regions":{}}', None),
    ("platform", 200, '{"meta":{},"regions":{"r":{"zones":{}}}}', None),
    ("platform", 200, '{"meta":{},"regions":[]}', "schema"),
    ("platform", 200, '{"meta":{},"regions":{"r":{}}}', "schema"),
    ("platform", 200, '{"meta":{},"regions":{"r":{"zones":{"z":{"hostings":{"h":{"available":"yes"}}}}}}}', "schema"),
    ("storage", 200, '{"events":[],"meta":{}}', None),
    ("storage", 200, '{"events":[],"meta":{"serverTime":1e309}}', "schema"),
    ("storage", 200, '{"events":[]}', "schema"),
    ("storage", 200, '{"events":{},"meta":{}}', "schema"),
    ("storage", 200, '{"meta":{}}', "schema"),
    ("storage", 200, '{"events":[], "meta": {"apiV', "decode"),
    ("storage", 200, '{"events":[{"content":NaN}],"meta":{}}', "decode"),
    ("storage", 200, "[" * 200_000, "too_large"),
    ("storage", 401, "", "auth"),
    ("storage", 401, '{"error":{"id":"invalid-access-token","message":"x"},"meta":{}}', "auth"),
    ("storage", 401, '{"message":"Unauthorized"}', "wrong_target"),
    ("storage", 403, '{"error":{"id":"forbidden","message":"Access has expired."}}', "auth"),
    ("storage", 403, '{"error":{"message":"no"}}', "wrong_target"),
    ("storage", 404, "", "not_found"),
    ("hfs", 200, "OK", None),
    ("hfs", 204, "", None),
    ("hfs", 200, "", None),
    ("hfs", 404, '{"error":{"id":"unknown-resource"}}', None),
    ("hfs", 401, "", None),
    ("hfs", 405, "<html>", None),
    ("hfs", 421, "", "wrong_target"),
    ("hfs", 301, "", "redirect"),
    ("hfs", 500, "", "http_status"),
    ("hfs", 504, "<html>", "http_status"),
    ("hfs", 200, "\n <!DOCTYPE html>", "wrong_target"),
    ("hfs", 200, "<HTML>", "wrong_target"),
    ("series", 404, '{"error":{"id":"unknown-resource","message":"Unknown event \\"nonexistent\\""}}', None),
    ("series", 404, '{"error":{"id":"unknown-resource","message":"Unknown user \\"u\\""}}', "not_found"),
    ("series", 404, '{"error":{"id":"unknown-resource","message":"Unknown user \\"u\\""},"meta":{}}', "wrong_target"),
    ("series", 404, '{"error":{"id":"unknown-resource","message":"Unknown resource "}}', "wrong_target"),
    ("series", 404, '{"error":{"id":"unknown-resource","message":7}}', "wrong_target"),
    ("series", 404, '{"error":{"id":"unknown-resource"}}', "wrong_target"),
    ("series", 404, '{"error":"no"}', "wrong_target"),
    ("series", 404, "", "not_found"),
    ("series", 404, "<html>", "not_found"),
    ("series", 200, '{"format":"flatJSON","points":[],"meta":{}}', "wrong_target"),
    ("series", 401, '{"error":{"id":"missing-header","message":"x"}}', "auth"),
    ("series", 500, '{"error":{"id":"Error: connect ECONNREFUSED 127.0.0.1:5432"}}', "http_status"),
    ("service_info", 200, '{"meta":{},"api":"x"}', None),
    ("service_info", 200, '{"meta":{},"features":{"noHF":"no"}}', "schema"),
    ("service_info", 200, '{"meta":{},"name":["x"]}', "schema"),
    ("access", 200, '{"meta":{},"type":"app","permissions":[]}', None),
    ("access", 200, '{"meta":{},"type":"shared","expires":"never"}', "schema"),
    ("access", 200, '{"meta":{},"type":"shared","permissions":{}}', "schema"),
    ("access", 200, '{"meta":{},"type":null}', "schema"),
]


@pytest.mark.parametrize(("check", "status", "body", "reason"), SHAPES)
async def test_the_shape_of_an_answer(check: str, status: int, body: str, reason: str | None) -> None:
    async with Server(lambda _: Answer(status, (), body.encode())) as server:
        outcome = await probe_once(pryv(f"http://127.0.0.1:{server.port}", checks=[check]))
    assert reasons(outcome) == {check: reason}


# --- what is published ----------------------------------------------------------------------------------------------

INFO = ("pryv_info", "2.0.0-pre.4", "2026112101", "Simulated Pryv")
HEALTHY: dict[tuple[str, ...], float] = {
    INFO: 1,
    ("pryv_username_registered",): 1,
    ("pryv_hfs_enabled",): 1,
    ("pryv_hosting_available", "default"): 1,
    ("pryv_token_info", "shared", "read"): 1,
}
LATER = 4_000_000_000.5

# faults -> what is published instead of what a healthy core has; None: absent
PUBLISHED: dict[str, tuple[dict[str, Any], dict[tuple[str, ...], float | None]]] = {
    "healthy": ({}, {}),
    "expiring token": ({"token_expires": LATER}, {("pryv_token_expiry_timestamp_seconds",): LATER}),
    "managing token": (
        {"token_level": "manage"},
        {("pryv_token_info", "shared", "read"): None, ("pryv_token_info", "shared", "manage"): 1},
    ),
    "token without permissions": (
        {"token_level": "none"},
        {("pryv_token_info", "shared", "read"): None, ("pryv_token_info", "shared", "none"): 1},
    ),
    "personal token": (
        {"personal_token": True},
        {("pryv_token_info", "shared", "read"): None, ("pryv_token_info", "personal", "full"): 1},
    ),
    "refused token": ({"token": "revoked"}, {("pryv_token_info", "shared", "read"): None}),
    "no account": (
        {"account": "deleted"},
        {("pryv_username_registered",): 0, ("pryv_token_info", "shared", "read"): None},
    ),
    "HFS off": ({"hfs_worker": "off"}, {("pryv_hfs_enabled",): 0}),
    "HFS dead": ({"hfs_worker": "dead"}, {}),
    "platform down": ({"platform": "refused"}, {("pryv_hosting_available", "default"): None}),
    "nothing there": ({"api_worker": "dead"}, dict.fromkeys(HEALTHY)),
    "login page": ({"proxy": "login_page"}, dict.fromkeys(HEALTHY)),
}


@pytest.mark.parametrize("name", PUBLISHED)
async def test_what_a_state_publishes(name: str) -> None:
    faults, changes = PUBLISHED[name]
    async with PryvCore() as core:
        for fault, value in faults.items():
            setattr(core.faults, fault, value)
        outcome = await probe_once(pryv(core.url))
    wanted = {key: number for key, number in {**HEALTHY, **changes}.items() if number is not None}
    assert of_pryv(outcome) == wanted


@pytest.mark.parametrize(
    ("mode", "records", "published"),
    [
        ("up", ["127.0.0.1"], {"pryv_dns_answers": 1, "pryv_dns_ttl_seconds": 300}),
        ("up", ["127.0.0.1", "127.0.0.9"], {"pryv_dns_answers": 2, "pryv_dns_ttl_seconds": 300}),
        ("nxdomain", ["127.0.0.1"], {}),
        ("empty", ["127.0.0.1"], {}),
        ("silent", ["127.0.0.1"], {}),
    ],
)
async def test_dns_answers_and_their_ttl(mode: Mode, records: list[str], published: dict[str, float]) -> None:
    async with two_cores() as (deployment, names):
        names.mode, names.records["usera01"] = mode, records
        outcome = await probe_once(settings(**domain_form(deployment, names, checks=["dns"], timeout=SHORT)))
    assert of_pryv(outcome) == {(name,): number for name, number in published.items()}
    assert names.queries[0] == ("usera01.pryv.test.", "A")


@pytest.mark.parametrize("offset", [0.0, 7.5, -86400.0])
async def test_the_clock_skew_is_server_minus_exporter(offset: float) -> None:
    async with PryvCore() as core:
        core.faults.clock_offset = offset
        skew = samples_of(await probe_once(pryv(core.url)))["pryv_clock_skew_seconds",]
    assert skew == pytest.approx(offset, abs=0.2)


async def test_the_clock_skew_is_that_of_the_quickest_answer_against_the_middle_of_its_exchange() -> None:
    def said(seconds: float, rest: str) -> Answer:
        return Answer(200, (), f'{{"meta":{{"serverTime":{time.time() + seconds}}},{rest}}}'.encode())

    async def answer(request: Request) -> Reply:
        if request.path.endswith("/hostings"):
            await asyncio.sleep(0.2)
            return said(1000, '"regions":{}')
        return said(10, '"reserved":true')

    async with Server(answer) as server:
        url = f"http://127.0.0.1:{server.port}"
        both = samples_of(await probe_once(pryv(url, checks=["registration", "platform"])))
        slow = samples_of(await probe_once(pryv(url, checks=["platform"])))
    assert both["pryv_clock_skew_seconds",] == pytest.approx(10, abs=0.1)
    # Stamped at the end of 0.2 s, it is compared with the middle of them.
    assert slow["pryv_clock_skew_seconds",] == pytest.approx(1000.1, abs=0.08)


@pytest.mark.parametrize("faults", [{"proxy": "login_page"}, {"api_worker": "dead"}])
async def test_no_answer_of_the_api_no_clock_skew(faults: dict[str, Any]) -> None:
    async with PryvCore() as core:
        for fault, value in faults.items():
            setattr(core.faults, fault, value)
        assert ("pryv_clock_skew_seconds",) not in samples_of(await probe_once(pryv(core.url)))


LONG = "x" * 300


def hostings(*zones: Mapping[str, object]) -> Answer:
    regions = {
        f"region{number}": {"zones": {"zone": {"hostings": {n: {"available": a} for n, a in zone.items()}}}}
        for number, zone in enumerate(zones)
    }
    return Answer(200, (), json.dumps({"meta": {}, "regions": regions}).encode())


@pytest.mark.parametrize(
    ("zones", "published"),
    [
        ([], {}),
        ([{"a": True, "b": False}], {"a": 1, "b": 0}),
        ([{"a": True}, {"b": True}], {"a": 1, "b": 1}),
        ([{"a": True}, {"a": False}], {"a": 0}),
        ([{"a": False}, {"a": True}], {"a": 0}),
        ([{"a": True}, {"a": True}], {"a": 1}),
        ([{"a": None, "b": True}], {"b": 1}),
        ([{"a": None}, {"a": True}], {"a": 1}),
        ([{LONG: True}], {f"{LONG[:200]}~{hashlib.sha256(LONG.encode()).hexdigest()[:8]}": 1}),
        ([{"a\nb": True}], {"a\ufffdb": 1}),
    ],
)
async def test_a_hosting_is_available_if_all_of_that_id_are(
    zones: list[dict[str, object]], published: dict[str, float]
) -> None:
    async with Server(lambda _: hostings(*zones)) as server:
        outcome = await probe_once(pryv(f"http://127.0.0.1:{server.port}", checks=["platform"]))
    assert reasons(outcome) == {"platform": None}
    assert {key[1]: number for key, number in of_pryv(outcome).items()} == published


async def test_a_hosting_without_a_core_is_not_available() -> None:
    async with two_cores() as (deployment, names):
        deployment.hostings["host-c"] = None
        outcome = await probe_once(settings(**domain_form(deployment, names, checks=["platform"])))
    assert {key[1]: number for key, number in of_pryv(outcome).items()} == {"host-a": 1, "host-b": 1, "host-c": 0}


async def test_more_hostings_than_a_target_may_name_fail_the_check() -> None:
    many = {f"h{number}": True for number in range(1001)}
    async with Server(lambda _: hostings(many)) as server:
        outcome = await probe_once(pryv(f"http://127.0.0.1:{server.port}", checks=["platform"]))
    assert reasons(outcome) == {"platform": "too_large"}
    assert len(of_pryv(outcome)) <= 1000


@pytest.mark.parametrize(
    ("permissions", "level"),
    [
        ([{"streamId": "*", "level": "contribute"}], "contribute"),
        ([{"streamId": "diary", "level": "manage"}], "none"),
        ([{"streamId": ":_system:account", "level": "none"}, {"streamId": "*", "level": "read"}], "read"),
        ([{"feature": "selfRevoke", "setting": "forbidden"}], "none"),
        ([{"streamId": "*"}], "none"),
        ([], "none"),
        (None, "none"),
    ],
)
async def test_the_level_of_a_token_is_that_on_all_streams(permissions: object, level: str) -> None:
    access = {"meta": {}, "type": "app"} | ({} if permissions is None else {"permissions": permissions})
    async with Server(lambda _: Answer(200, (), json.dumps(access).encode())) as server:
        outcome = await probe_once(pryv(f"http://127.0.0.1:{server.port}", checks=["access"]))
    assert of_pryv(outcome) == {("pryv_token_info", "app", level): 1}


@pytest.mark.parametrize(
    ("info", "labels"),
    [
        (
            {"meta": {"apiVersion": "2.0", "serial": "m"}, "serial": "s", "name": "N", "version": "1.9"},
            ("2.0", "s", "N"),
        ),
        ({"meta": {"serial": "m"}, "version": "1.9"}, ("1.9", "m", "")),
        ({"api": "x"}, ("", "", "")),
    ],
)
async def test_what_is_deployed_is_read_from_service_info(info: dict[str, Any], labels: tuple[str, ...]) -> None:
    async with Server(lambda _: Answer(200, (), json.dumps(info).encode())) as server:
        outcome = await probe_once(pryv(f"http://127.0.0.1:{server.port}", checks=["service_info"]))
    assert of_pryv(outcome) == {("pryv_info", *labels): 1, ("pryv_hfs_enabled",): 1}


# --- a deployment without HFS ---------------------------------------------------------------------------------------


async def test_without_hfs_its_checks_give_no_sample_at_all() -> None:
    async with PryvCore() as core:
        core.faults.hfs_worker = "off"
        outcome = await probe_once(pryv(core.url))
    assert outcome.success
    assert not [key for key in samples_of(outcome) if "hfs" in key[1:] or "series" in key[1:]]


async def test_without_hfs_its_checks_stay_out_while_service_info_fails() -> None:
    async with PryvCore() as core, prober_of(pryv(core.url, timeout=SHORT)) as prober:
        core.faults.hfs_worker = "off"
        await ask(prober)
        core.faults.api_worker = "frozen"
        frozen = reasons(await ask(prober))
        core.faults.api_worker = "dead"
        dead = reasons(await ask(prober))
    assert frozen.keys() == dead.keys() == set(SINGLE) - {"hfs", "series"}
    assert frozen["service_info"] == "timeout"
    assert dead["service_info"] == "connect"


async def test_an_hfs_switched_on_is_checked_again_at_once() -> None:
    async with PryvCore() as core, prober_of(pryv(core.url)) as prober:
        core.faults.hfs_worker = "off"
        await ask(prober)
        core.faults.hfs_worker = "dead"
        seen = reasons(await ask(prober))
    assert seen == expected(SINGLE, {"hfs": "http_status", "series": "http_status"})


async def test_without_service_info_ever_heard_the_hfs_is_checked() -> None:
    async with PryvCore() as core:
        core.faults.hfs_worker, core.faults.api_worker = "off", "frozen"
        seen = reasons(await probe_once(pryv(core.url, timeout=SHORT)))
    assert seen["hfs"] == seen["series"] == "http_status"


async def test_without_the_check_service_info_the_hfs_is_checked() -> None:
    async with PryvCore() as core:
        core.faults.hfs_worker = "off"
        seen = reasons(await probe_once(pryv(core.url, checks=["hfs", "series"])))
    assert seen == {"hfs": "http_status", "series": "http_status"}


# --- remembered answers ---------------------------------------------------------------------------------------------


def observed(outcome: Outcome, check: str) -> set[str]:
    """Return the names of the metrics that say what was observed while asking a check."""
    return {
        key[0].removeprefix("probe_check_")
        for key in samples_of(outcome)
        if key[1:2] == (check,) and key[0] in OBSERVED
    }


OBSERVED = {
    "probe_check_duration_seconds",
    "probe_check_http_status_code",
    "probe_check_http_duration_seconds",
}
ASKED = {"duration_seconds", "http_status_code", "http_duration_seconds"}


def asked_at(outcome: Outcome, check: str) -> float | None:
    return samples_of(outcome).get(("probe_check_asked_timestamp_seconds", check))


async def test_an_answer_is_reused_until_it_is_older_than_its_interval() -> None:
    clock = FakeClock()
    begin = clock.now
    async with PryvCore() as core, prober_of(pryv(core.url), clock=clock.clock) as prober:
        core.faults.token_expires = LATER
        first = await ask(prober)
        assert audited(core) == 2

        clock.advance(59.9)
        reused = await ask(prober)
        assert audited(core) == 2

        clock.advance(0.2)
        storage_again = await ask(prober)
        assert audited(core) == 3

        clock.advance(239.8)
        assert audited(core) == 3
        access_reused = await ask(prober)
        assert audited(core) == 4  # storage

        clock.advance(0.2)
        access_again = await ask(prober)
        assert audited(core) == 5

    every_probe = (first, reused, storage_again, access_reused, access_again)
    assert [reasons(outcome) for outcome in every_probe] == [expected(SINGLE, {})] * 5
    assert [of_pryv(outcome) for outcome in every_probe] == [
        {**HEALTHY, ("pryv_token_expiry_timestamp_seconds",): LATER}
    ] * 5
    assert [observed(outcome, "storage") for outcome in every_probe] == [ASKED, set(), ASKED, ASKED, set()]
    assert [observed(outcome, "access") for outcome in every_probe] == [ASKED, set(), set(), set(), ASKED]
    assert [observed(outcome, "series") for outcome in every_probe] == [ASKED] * 5
    times = [(asked_at(outcome, "storage"), asked_at(outcome, "access")) for outcome in every_probe]
    assert [(s - begin, a - begin) for s, a in times if s and a] == [
        pytest.approx(pair) for pair in ((0, 0), (0, 0), (60.1, 0), (299.9, 0), (299.9, 300.1))
    ]
    assert {asked_at(outcome, "series") for outcome in every_probe} == {None}


@pytest.mark.parametrize("check", ["storage", "access"])
async def test_an_interval_of_0_asks_at_every_probe(check: str) -> None:
    async with PryvCore() as core, prober_of(pryv(core.url, checks=[check], **ALWAYS_ASK)) as prober:
        outcomes = [await ask(prober) for _ in range(3)]
        assert audited(core) == 3
    assert [observed(outcome, check) for outcome in outcomes] == [ASKED] * 3


async def test_a_failure_is_asked_again_at_the_next_probe() -> None:
    clock = FakeClock()
    async with PryvCore() as core, prober_of(pryv(core.url), clock=clock.clock) as prober:
        core.faults.events_table = "broken"
        assert reasons(await ask(prober)) == expected(SINGLE, {"storage": "http_status"})
        clock.advance(1)
        again = await ask(prober)
        assert reasons(again) == expected(SINGLE, {"storage": "http_status"})
        assert observed(again, "storage") == ASKED
        core.faults.events_table = "ok"
        assert reasons(await ask(prober)) == expected(SINGLE, {})


async def test_a_broken_database_is_seen_by_series_while_storage_is_remembered() -> None:
    clock = FakeClock()
    async with PryvCore() as core, prober_of(pryv(core.url), clock=clock.clock) as prober:
        await ask(prober)
        core.faults.postgres = "refused"
        clock.advance(15)
        assert reasons(await ask(prober)) == expected(SINGLE, {"series": "http_status", "platform": "http_status"})
        clock.advance(45)
        seen = reasons(await ask(prober))
    assert seen == expected(SINGLE, {"series": "http_status", "platform": "http_status", "storage": "http_status"})


async def test_a_remembered_access_that_has_expired_meanwhile_is_refused() -> None:
    clock = FakeClock()
    async with PryvCore() as core, prober_of(pryv(core.url, checks=["access"]), clock=clock.clock) as prober:
        core.faults.token_expires = clock.now + 100
        assert reasons(await ask(prober)) == {"access": None}
        clock.advance(99.9)
        assert reasons(await ask(prober)) == {"access": None}
        clock.advance(0.1)
        expired = await ask(prober)
        assert audited(core) == 1
    assert reasons(expired) == {"access": "auth"}
    assert observed(expired, "access") == set()
    assert asked_at(expired, "access") == clock.now - 100


# --- a refused token ------------------------------------------------------------------------------------------------


def sent(core: PryvCore) -> int:
    """Return how many requests so far have carried a token."""
    return sum(token_of(request) is not None for request in core.server.requests)


async def test_a_refused_token_is_not_sent_again_for_auth_backoff() -> None:
    clock = FakeClock()
    async with PryvCore() as core, prober_of(pryv(core.url), clock=clock.clock) as prober:
        core.faults.token = "revoked"
        first = await ask(prober)
        assert reasons(first) == expected(SINGLE, {"storage": "auth", "access": "auth"})
        assert sent(core) == 3

        clock.advance(30)
        second = await ask(prober)
        clock.advance(29.9)
        third = await ask(prober)
        assert sent(core) == 3
        assert reasons(second) == reasons(third) == expected(SINGLE, dict.fromkeys(WITH_TOKEN, "auth"))
        assert [observed(third, check) for check in WITH_TOKEN] == [set()] * 3
        assert asked_at(third, "storage") == asked_at(third, "access") == clock.now - 59.9

        core.faults.token = "valid"
        clock.advance(0.2)
        fourth = await ask(prober)
        assert sent(core) == 6
    assert reasons(fourth) == expected(SINGLE, {})
    assert asked_at(fourth, "storage") == clock.now


@pytest.mark.parametrize("refused", ["storage", "access"])
async def test_one_refusal_holds_for_every_check_with_a_token_also_for_one_remembered(refused: str) -> None:
    clock = FakeClock()
    intervals = {"storage_interval": 300, "access_interval": 300, f"{refused}_interval": 10}
    async with PryvCore() as core, prober_of(pryv(core.url, **intervals), clock=clock.clock) as prober:
        assert reasons(await ask(prober)) == expected(SINGLE, {})
        core.faults.token = "revoked"
        clock.advance(10)
        await ask(prober)
        clock.advance(5)
        before = sent(core)
        seen = reasons(await ask(prober))
        assert sent(core) == before
        clock.advance(60)
        core.faults.token = "valid"
        after = reasons(await ask(prober))
    assert seen == expected(SINGLE, dict.fromkeys(WITH_TOKEN, "auth"))
    assert after == expected(SINGLE, {})


async def test_a_backoff_of_0_sends_the_token_at_every_probe() -> None:
    async with PryvCore() as core, prober_of(pryv(core.url, auth_backoff=0)) as prober:
        core.faults.token = "revoked"
        for _ in range(3):
            assert reasons(await ask(prober)) == expected(SINGLE, {"storage": "auth", "access": "auth"})
        assert sent(core) == 9


@pytest.mark.parametrize("proxy", ["login_page", "rate_limit"])
async def test_what_is_no_refusal_of_the_token_holds_nothing_back(proxy: Literal["login_page", "rate_limit"]) -> None:
    async with PryvCore() as core, prober_of(pryv(core.url)) as prober:
        core.faults.proxy = proxy
        await ask(prober)
        core.faults.proxy = "none"
        assert reasons(await ask(prober)) == expected(SINGLE, {})


async def test_a_changed_token_file_ends_the_backoff_at_once(tmp_path: Path) -> None:
    clock, file = FakeClock(), tmp_path / "token"
    file.write_text("old-token\n", encoding="utf-8")
    async with PryvCore() as core:
        target = settings(url=core.url, username=core.username, token_file=str(file))
        async with prober_of(target, clock=clock.clock) as prober:
            refused = dict.fromkeys(WITH_TOKEN, "auth")
            assert reasons(await ask(prober)) == expected(SINGLE, refused)
            assert reasons(await ask(prober)) == expected(SINGLE, refused)
            assert sent(core) == 3
            file.write_text(f"{core.token}\n", encoding="utf-8")
            assert reasons(await ask(prober)) == expected(SINGLE, {})
            assert sent(core) == 6


async def test_a_changed_token_file_ends_what_is_remembered_of_the_old_token(tmp_path: Path) -> None:
    clock, file = FakeClock(), tmp_path / "token"
    async with PryvCore() as core:
        file.write_text(core.token, encoding="utf-8")
        target = settings(url=core.url, username=core.username, token_file=str(file))
        async with prober_of(target, clock=clock.clock) as prober:
            assert reasons(await ask(prober)) == expected(SINGLE, {})
            file.write_text("another-token", encoding="utf-8")
            assert reasons(await ask(prober)) == expected(SINGLE, dict.fromkeys(WITH_TOKEN, "auth"))


# --- where is asked, and with what ----------------------------------------------------------------------------------


async def test_the_token_stands_in_one_header_of_three_requests_and_in_no_url() -> None:
    async with PryvCore() as core:
        await probe_once(pryv(core.url))
        requests = [*core.server.requests]
    assert {(request.method, request.target): token_of(request) for request in requests} == {
        ("GET", "/reg/healthmetrics01/check_username"): None,
        ("GET", "/reg/hostings"): None,
        ("GET", "/reg/service/info"): None,
        ("GET", "/healthmetrics01/events?limit=1"): core.token,
        ("GET", "/healthmetrics01/access-info"): core.token,
        ("GET", "/healthmetrics01/events/nonexistent/series"): core.token,
        ("OPTIONS", "/healthmetrics01/events/nonexistent/series"): None,
    }
    assert len(requests) == len(SINGLE)
    assert not any(core.token in request.target for request in requests)


async def test_every_check_has_a_fresh_connection() -> None:
    async with PryvCore() as core, prober_of(pryv(core.url, **ALWAYS_ASK)) as prober:
        await ask(prober)
        await ask(prober)
        assert core.server.accepted == 14


async def test_the_name_of_the_account_is_asked_for_at_the_core_whatever_dns_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lookups(monkeypatch, {})
    async with two_cores() as (deployment, names):
        names.records["usera01"] = ["192.0.2.1"]
        home, other = deployment.cores.values()
        outcome = await probe_once(settings(**domain_form(deployment, names)))
        hosts = {(request.method, request.target): request.headers["host"] for request in home.server.requests}
        assert not other.server.requests
    own, core = f"usera01.pryv.test:{home.server.port}", f"127.0.0.1:{home.server.port}"
    assert reasons(outcome) == expected(MULTI, {"dns": "unhealthy"})
    assert hosts == {
        ("GET", "/events?limit=1"): own,
        ("GET", "/access-info"): own,
        ("GET", "/events/nonexistent/series"): own,
        ("OPTIONS", "/events/nonexistent/series"): own,
        ("GET", "/reg/usera01/check_username"): core,
        ("GET", "/reg/hostings"): core,
        ("GET", "/reg/service/info"): core,
    }


async def test_a_registration_name_of_the_domain_is_asked_for_at_the_core_too(monkeypatch: pytest.MonkeyPatch) -> None:
    lookups(monkeypatch, {})
    async with two_cores() as (deployment, names):
        keys = domain_form(deployment, names, register_url="http://reg.pryv.test")
        outcome = await probe_once(settings(**keys))
        home = deployment.cores["core-a"]
        hosts = {r.target: r.headers["host"] for r in home.server.requests if r.path.endswith(("hostings", "info"))}
    assert reasons(outcome) == expected(MULTI, {})
    port = home.server.port
    assert hosts == {
        "/hostings": f"reg.pryv.test:{port}",
        "/service/info": f"reg.pryv.test:{port}",
        "/access-info": f"usera01.pryv.test:{port}",
    }


async def test_registration_can_be_asked_elsewhere() -> None:
    async with PryvCore() as core, PryvCore() as register:
        outcome = await probe_once(pryv(core.url, register_url=f"{register.url}/reg"))
        at_core = {request.path.split("/")[1] for request in core.server.requests}
        at_register = {request.path.split("/")[1] for request in register.server.requests}
    assert reasons(outcome) == expected(SINGLE, {})
    assert (at_core, at_register) == ({"healthmetrics01"}, {"reg"})


async def test_the_host_header_is_sent_to_the_core_with_every_request() -> None:
    async with PryvCore() as core:
        await probe_once(pryv(core.url, host_header="api.example.com:8443"))
        assert {request.headers["host"] for request in core.server.requests} == {"api.example.com:8443"}


async def test_an_api_endpoint_with_the_account_in_its_path(tmp_path: Path) -> None:
    file = tmp_path / "endpoint"
    async with PryvCore() as core:
        file.write_text(core.url.replace("//", f"//{core.token}@") + f"/{core.username}/\n", encoding="utf-8")
        target = settings(api_endpoint_file="endpoint", directory=tmp_path)
        outcome = await probe_once(target)
    assert reasons(outcome) == expected(SINGLE, {})
    assert str(target.address) == core.url


async def test_an_api_endpoint_with_the_account_in_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lookups(monkeypatch, {"usera01.pryv.test": "127.0.0.1"})
    file = tmp_path / "endpoint"
    async with two_cores() as (deployment, names):
        port = deployment.cores["core-a"].server.port
        file.write_text(f"http://usera01-token@usera01.pryv.test:{port}/", encoding="utf-8")
        dns = {"nameservers": [f"127.0.0.1:{names.port}"]}
        outcome = await probe_once(settings(api_endpoint_file=str(file), dns=dns))
        hosts = {request.headers["host"] for request in deployment.cores["core-a"].server.requests}
    assert reasons(outcome) == expected(MULTI, {})
    assert hosts == {f"usera01.pryv.test:{port}", f"reg.pryv.test:{port}"}


async def test_an_api_endpoint_file_that_changes_moves_the_target(tmp_path: Path) -> None:
    file = tmp_path / "endpoint"
    async with PryvCore() as old, PryvCore("newmetrics01", "new-simulated-token") as new:

        def point_to(core: PryvCore) -> None:
            text = core.url.replace("//", f"//{core.token}@") + f"/{core.username}/"
            file.write_text(text, encoding="utf-8")

        point_to(old)
        async with prober_of(settings(api_endpoint_file=str(file))) as prober:
            before = reasons(await ask(prober))
            asked_of_old = len(old.server.requests)
            point_to(new)
            moved = reasons(await ask(prober))
            file.write_text("not an endpoint", encoding="utf-8")
            broken = reasons(await ask(prober))
            file.unlink()
            gone = reasons(await ask(prober))
            asked_of_new = [request.path for request in new.server.requests if request.path.startswith("/reg/new")]
            assert len(old.server.requests) == asked_of_old
    assert before == moved == broken == gone == expected(SINGLE, {})
    assert asked_of_new == ["/reg/newmetrics01/check_username"] * 3


# --- TLS ------------------------------------------------------------------------------------------------------------


def certified(tmp_path: Path, *names: str, days: int = 30) -> tuple[ssl.SSLContext, dict[str, str], float]:
    """Return a server's context, the tls_config that trusts it, and when its certificate expires."""
    authority = trustme.CA()
    expiry = (datetime.now(UTC) + timedelta(days=days)).replace(microsecond=0)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names, not_before=expiry - timedelta(days=90), not_after=expiry).configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return context, {"ca_file": str(tmp_path / "ca.pem")}, expiry.timestamp()


@pytest.mark.parametrize(
    ("names", "days", "trusted", "failing"),
    [
        (("127.0.0.1",), 30, True, {}),
        (("127.0.0.1",), 30, False, every("tls")),
        (("127.0.0.1",), -1, True, every("tls")),
        (("127.0.0.2", "core.test"), 30, True, every("tls")),
    ],
)
async def test_certificates_of_a_core(
    tmp_path: Path, names: tuple[str, ...], days: int, *, trusted: bool, failing: dict[str, str]
) -> None:
    context, trust, expiry = certified(tmp_path, *names, days=days)
    async with PryvCore(ssl=context) as core:
        outcome = await probe_once(pryv(core.url, tls_config=trust if trusted else {}))
    assert reasons(outcome) == expected(SINGLE, failing)
    assert samples_of(outcome)["probe_ssl_earliest_cert_expiry",] == expiry


@pytest.mark.parametrize(
    ("names", "failing"),
    [
        (("127.0.0.1", "*.pryv.test"), {}),
        (("127.0.0.1",), dict.fromkeys(("storage", "hfs", "series", "access"), "tls")),
        (("*.pryv.test",), dict.fromkeys(("registration", "platform", "service_info"), "tls")),
    ],
)
async def test_the_name_of_the_account_is_in_the_certificate_of_its_core(
    tmp_path: Path, names: tuple[str, ...], failing: dict[str, str]
) -> None:
    context, trust, _ = certified(tmp_path, *names)
    records = {"healthmetrics01": ["127.0.0.1"]}
    async with PryvCore(domain="pryv.test", ssl=context) as core, DnsServer("pryv.test", records) as server:
        dns = {"nameservers": [f"127.0.0.1:{server.port}"]}
        outcome = await probe_once(pryv(core.url, domain="pryv.test", dns=dns, tls_config=trust))
    assert reasons(outcome) == expected(MULTI, failing)


# --- settings -------------------------------------------------------------------------------------------------------

ACCOUNT: dict[str, Any] = {"url": "https://api.example.com", "username": "healthmetrics01", "token": "t"}
FREE = {"url": "https://api.example.com"}

RULES: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    (ACCOUNT, []),
    ({**FREE, "username": "healthmetrics01", "token_file": "f"}, []),
    ({"api_endpoint": "e"}, []),
    ({"api_endpoint_file": "f"}, []),
    ({"username": "healthmetrics01", "token": "t"}, [("", "give url or api_endpoint or api_endpoint_file")]),
    ({**FREE, "token": "t"}, [("", "missing key username")]),
    ({**FREE, "username": "healthmetrics01"}, [("", "give token or token_file")]),
    ({**ACCOUNT, "token_file": "f"}, [("token_file", "give only one of token and token_file")]),
    (
        {"api_endpoint": "e", "api_endpoint_file": "f"},
        [("api_endpoint_file", "give only one of api_endpoint and api_endpoint_file")],
    ),
    ({"url": "https://h", "api_endpoint": "e"}, [("api_endpoint", "give only one of url and api_endpoint")]),
    *(
        ({"api_endpoint_file": "f", key: "x"}, [(key, f"{key} is a part of the api endpoint: give one of them")])
        for key in ("username", "token", "token_file", "domain")
    ),
    (
        {**ACCOUNT, "checks": ["dns"]},
        [("checks", "the check dns needs domain: a single-core deployment has no name for each user")],
    ),
    ({**ACCOUNT, "domain": "example.com", "checks": ["dns"]}, []),
    (
        {**ACCOUNT, "basic_auth": {"username": "u", "password": "p"}},
        [("basic_auth", "basic_auth cannot be used here: Pryv takes its token in the same header")],
    ),
    (
        {**ACCOUNT, "headers": {"authorization": "x"}},
        [("headers", "Authorization cannot be set here: Pryv takes its token in it")],
    ),
    (
        {**ACCOUNT, "header_files": {"Authorization": "f"}},
        [("header_files", "Authorization cannot be set here: Pryv takes its token in it")],
    ),
    ({**ACCOUNT, "headers": {"X-Tenant": "x"}}, []),
    (
        {**ACCOUNT, "url": "http://h", "domain": "example.com", "proxy_url": "http://p"},
        [("domain", "domain with a proxy needs an https url: a proxy would rewrite the Host of plain http")],
    ),
    ({**ACCOUNT, "domain": "example.com", "proxy_url": "http://p"}, []),
    (
        {**ACCOUNT, "domain": "example.com", "proxy_url": "http://p", "register_url": "HTTP://reg.example.com"},
        [("register_url", "domain with a proxy needs https here: a proxy would rewrite the Host of plain http")],
    ),
    ({**ACCOUNT, "domain": "example.com", "proxy_url": "http://p", "register_url": "https://reg.example.com"}, []),
    ({**ACCOUNT, "proxy_url": "http://p", "register_url": "http://reg.example.com"}, []),
]


@pytest.mark.parametrize(("written", "broken"), RULES)
def test_rules_between_keys(written: dict[str, Any], broken: list[tuple[str, str]]) -> None:
    assert list(Settings.rules(written)) == broken


FAULTS: list[tuple[str, object, str]] = [
    *(
        ("username", name, "Value error, a Pryv username has 5 to 60 of the characters a-z 0-9 -")
        for name in ("abcd", "a" * 61, "Healthmetrics01", "health.metrics", "health/../x", "")
    ),
    *(("domain", name, "Value error, not a domain name") for name in ("", "a b", "ex/ample.com", "https://a.b")),
    ("domain", "a..b", "not a valid host: a..b"),
    ("domain", "1.2.3", "not a valid host: 1.2.3"),
    ("register_url", "https://u@reg.example.com", "a user part in a URL is not allowed"),
    ("register_url", "reg.example.com", "a URL here begins with http:// or https:// and a host"),
    ("checks", [], "must not be empty"),
    ("checks", ["storage", "storage"], "a check is listed twice"),
    ("checks", ["everything"], "Input should be 'dns'"),
    ("storage_interval", "soon", "not a duration"),
    ("access_interval", -1, "not a duration"),
    ("auth_backoff", "-1s", "not a duration"),
    ("dns", {"timeout": 0}, "must be more than 0"),
    ("dns", {"expect": ["::1"]}, "Value error, not an IPv4 address: only A records are asked"),
    ("dns", {"expect": ["core.example.com"]}, "Value error, not an IPv4 address: only A records are asked"),
    ("dns", {"nameservers": ["ns.example.com:53"]}, "not an IP address with a port"),
    ("dns", {"nameservers": ["192.0.2.53:99999"]}, "not an IP address with a port"),
    ("dns", {"nameservers": ["[::1"]}, "not an IP address with a port"),
    ("dns", {"nameservers": [53]}, "not an address and port"),
    ("dns", {"servers": []}, "Extra inputs are not permitted"),
    ("token", "", "the secret is empty"),
    ("token", "a\nb", "line break"),
    ("token_file", "no-such-file", "cannot read secret file"),
    ("api_endpoint", "https://api.example.com/", "not an apiEndpoint"),
    ("api_endpoint_file", "no-such-file", "cannot read secret file"),
    ("tokn", "x", "Extra inputs are not permitted"),
]


@pytest.mark.parametrize(("key", "value", "message"), FAULTS)
def test_faults_of_one_key(key: str, value: object, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({"name": "t", "collector": "pryv", **ACCOUNT, key: value})
    detail = caught.value.errors(include_input=False)[0]
    assert message in detail["msg"]
    assert detail["loc"][0] == key


def test_an_api_endpoint_file_with_something_else_in_it_is_a_fault_that_does_not_show_it(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("https://hidden@example.com/a/b/", encoding="utf-8")
    with pytest.raises(ValidationError) as caught:
        settings(api_endpoint_file="f", directory=tmp_path)
    assert "not an apiEndpoint" in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_defaults() -> None:
    target = Settings.model_validate({"name": "t", "collector": "pryv", **ACCOUNT})
    assert (target.storage_interval, target.access_interval, target.auth_backoff) == (60, 300, 60)
    assert (target.dns.nameservers, target.dns.expect, target.dns.timeout) == ((), (), 2)
    assert str(target.account.register_url) == "https://api.example.com/reg"


@pytest.mark.parametrize(
    ("written", "checks"),
    [
        ({}, SINGLE),
        ({"domain": "Example.com"}, MULTI),
        ({"checks": ["access", "storage"]}, ("storage", "access")),
        ({"checks": ["dns"], "domain": "example.com"}, ("dns",)),
    ],
)
def test_checks_have_one_order(written: dict[str, Any], checks: tuple[str, ...]) -> None:
    target = Settings.model_validate({"name": "t", "collector": "pryv", **ACCOUNT, **written})
    assert target.check_names() == checks


def test_name_servers_are_addresses_with_a_port() -> None:
    written = ["192.0.2.53", "192.0.2.53:5353", "2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:5353"]
    servers = settings(**ACCOUNT, dns={"nameservers": written, "expect": ["192.0.2.10"]})
    assert isinstance(servers, Settings)
    assert [(server.address, server.port) for server in servers.dns.nameservers] == [
        ("192.0.2.53", 53),
        ("192.0.2.53", 5353),
        ("2001:db8::1", 53),
        ("2001:db8::1", 53),
        ("2001:db8::1", 5353),
    ]


ENDPOINTS: dict[str, tuple[str, str, str | None, str]] = {
    "https://hidden@user01.example.com/": (
        "user01",
        "https://user01.example.com",
        "example.com",
        "https://reg.example.com",
    ),
    "https://hidden@user01.example.com": (
        "user01",
        "https://user01.example.com",
        "example.com",
        "https://reg.example.com",
    ),
    "https://hidden@user01.mc.example.com:8443/": (
        "user01",
        "https://user01.mc.example.com:8443",
        "mc.example.com",
        "https://reg.mc.example.com:8443",
    ),
    "https://hidden@USER01.Example.com/": (
        "user01",
        "https://user01.example.com",
        "example.com",
        "https://reg.example.com",
    ),
    "https://hidden@example.com/user01/": ("user01", "https://example.com", None, "https://example.com/reg"),
    "https://hidden@example.com/user01": ("user01", "https://example.com", None, "https://example.com/reg"),
    "http://hidden@127.0.0.1:3000/user01/": ("user01", "http://127.0.0.1:3000", None, "http://127.0.0.1:3000/reg"),
    "http://hidden@[::1]:3000/user01/": ("user01", "http://[::1]:3000", None, "http://[::1]:3000/reg"),
}


@pytest.mark.parametrize("text", ENDPOINTS)
def test_api_endpoints_in_both_forms(text: str) -> None:
    username, url, domain, register = ENDPOINTS[text]
    assert parse_api_endpoint(text) == Account(username, "hidden", URL(url), domain, URL(register))


def test_a_token_in_an_api_endpoint_may_be_percent_encoded() -> None:
    assert parse_api_endpoint("https://a%2Fb@example.com/user01/").token == "a/b"


def test_an_account_does_not_show_its_token() -> None:
    assert "hidden" not in repr(parse_api_endpoint("https://hidden@user01.example.com/"))


NO_ENDPOINTS = [
    "",
    "hidden",
    "https://example.com/user01/",
    "https://@example.com/user01/",
    "https://user:hidden@example.com/user01/",
    "https://hidden@example.com/user01/events",
    "https://hidden@example.com/user01/?auth=hidden",
    "https://hidden@/user01/",
    "https://hidden@user01/",
    "https://hidden@abc.example.com/",
    "https://hidden@example.com/UPPER_case/",
    "https://hidden@user01.exa mple.com/",
    "https://hidden@user01..com/",
    "https://hidden@127.0.0.1/",
    "https://hidden@[::1]/",
    "https://hidden@[::1",
    "https://hidden@example.com:hidden/user01/",
    "https://hidden@example.com:99999/user01/",
    "ftp://hidden@example.com/user01/",
    "hidden@example.com/user01",
    "//hidden@example.com/user01",
]


@pytest.mark.parametrize("text", NO_ENDPOINTS)
def test_what_is_no_api_endpoint_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"apiEndpoint|username|domain|host") as caught:
        parse_api_endpoint(text)
    assert "hidden" not in str(caught.value)


def refusal(text: str) -> str:
    try:
        parse_api_endpoint(text)
    except ValueError as error:
        return str(error)
    return ""


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_no_message_about_an_api_endpoint_repeats_the_token(before: str, host: str, path: str) -> None:
    assert "hidden" not in refusal(f"{before}hidden")
    assert "hidden" not in refusal(f"https://{before}hidden@{host}/{path}")


# --- any answer at all ----------------------------------------------------------------------------------------------

MEASURED: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "fixtures" / "pryv_answers.json").read_text(encoding="utf-8")
)["answers"]
BODIES = sorted({str(measured.get("body", "")) for measured in MEASURED.values()})
KEYS = st.sampled_from(
    [
        "meta",
        "error",
        "reserved",
        "regions",
        "events",
        "zones",
        "hostings",
        "available",
        "features",
        "noHF",
        "type",
        "permissions",
        "expires",
        "id",
        "message",
        "streamId",
        "level",
        "name",
        "version",
        "serial",
        "apiVersion",
        "serverTime",
        "cheersFrom",
        "api",
    ]
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)
STATUSES = st.sampled_from([200, 201, 204, 301, 304, 400, 401, 403, 404, 409, 421, 429, 500, 502, 599])


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Draw a measured body with some of it replaced."""
    body = draw(st.sampled_from(BODIES)).encode()
    at = draw(st.integers(0, len(body)))
    return body[:at] + draw(st.binary(max_size=6)) + body[at + draw(st.integers(0, 12)) :]


@st.composite
def re_shaped(draw: st.DrawFn) -> bytes:
    """Draw a measured document with the value of one key replaced."""
    document = json.loads(draw(st.sampled_from([body for body in BODIES if body.startswith("{")])))
    part = document
    while isinstance(part, dict) and part:
        key = draw(st.sampled_from(sorted(part)))
        if not isinstance(part[key], dict) or draw(st.booleans()):
            part[key] = draw(JSON_VALUES)
            break
        part = part[key]
    return json.dumps(document).encode()


ANY_BODY = st.binary(max_size=200) | JSON_VALUES.map(lambda value: json.dumps(value).encode()) | mutated() | re_shaped()
ANY_REPLY: st.SearchStrategy[Reply] = (
    st.builds(Answer, STATUSES | st.integers(200, 599), st.just(()), ANY_BODY, st.booleans())
    | st.builds(
        Raw,
        st.binary(max_size=200) | ANY_BODY.map(lambda body: b"HTTP/1.1 200 OK\r\n\r\n" + body),
        st.just(Close()) | st.just(Reset()),
    )
    | st.just(Close())
    | st.just(Reset())
)


@hypothesis_settings(deadline=None, max_examples=150)
@given(st.lists(ANY_REPLY, min_size=len(SINGLE), max_size=len(SINGLE)))
async def test_any_answer_ends_as_a_verdict_in_time(replies: list[Reply]) -> None:
    places = ("check_username", "hostings", "events", "series", "info", "access-info")

    def answer(request: Request) -> Reply:
        at = places.index(request.path.rpartition("/")[2]) if request.method == "GET" else len(places)
        return replies[at]

    began = time.monotonic()
    async with Server(answer) as server:
        outcome = await probe_once(pryv(f"http://127.0.0.1:{server.port}", timeout=2))
    assert time.monotonic() - began < 2.5
    assert "internal" not in reasons(outcome).values()
    keys = [(sample.metric, sample.values) for sample in outcome.samples(5.0)]
    assert len(keys) == len(set(keys))
