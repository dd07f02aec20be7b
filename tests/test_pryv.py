"""The Pryv collector against the simulator: what every state of a deployment looks like, and what is asked of it."""

# ruff: noqa: S105, S106 - the tokens are simulated

import asyncio
import contextlib
import json
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError
from yarl import URL

import collectors.http
from collectors import COLLECTORS
from collectors.pryv import Account, Settings, parse_api_endpoint
from health_exporter.outcome import Outcome
from health_exporter.prober import Budget, Prober
from health_exporter.simulators.dns import DnsServer
from health_exporter.simulators.pryv import PryvCore, PryvDeployment
from health_exporter.simulators.wire import Answer, Close, Hang, Raw, Reply, Request, Reset, Server
from tests.support import FakeClock, probe_once, prober_of, pryv, reasons, samples_of, settings

SINGLE = ("registration", "platform", "storage", "hfs", "series", "service_info", "access")
MULTI = ("dns", *SINGLE)
HTTP_OF_USER = ("storage", "hfs", "series", "access")
AUDITED = ("storage", "access")
SHORT = 0.25
"""The timeout of probes in which something never answers."""
ALWAYS_ASK = {"storage_interval": 0, "access_interval": 0, "auth_backoff": 0}

Setup = Callable[[Any], Awaitable[None] | None]
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
    setup: Setup | None = None
    left_out: tuple[str, ...] = ()


STORAGE_DOWN = {"storage": "http_status", "series": "http_status", "access": "http_status"}
STORAGE_SILENT = {"storage": "timeout", "series": "timeout", "access": "timeout"}
NO_ACCOUNT = {"registration": "not_found", "storage": "not_found", "series": "not_found", "access": "not_found"}
SILENT = {"target": {"timeout": SHORT}}


def hfs_met_a_dead_database(core: PryvCore) -> None:
    core.faults.hfs_worker = "stuck"


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
    "database frozen": State({"postgres": "frozen"}, {**STORAGE_SILENT, "platform": "timeout"}, **SILENT),
    "database frozen, worker just restarted": State(
        {"postgres": "frozen"},
        {**STORAGE_SILENT, "platform": "timeout", "registration": "timeout"},
        warm=False,
        **SILENT,
    ),
    "events table broken": State({"events_table": "broken"}, {"storage": "http_status"}),
    "events table locked for longer than a check": State({"events_table": "locked"}, {"storage": "timeout"}, **SILENT),
    "events table locked for a moment": State({"events_table": "locked", "lock_seconds": 0.05}),
    "events table broken, token without permissions": State({"events_table": "broken", "token_level": "none"}),
    "events table broken, personal token": State({"events_table": "broken", "personal_token": True}),
    "audit table broken": State({"audit": "broken"}),
    # The platform database, which none of the guide's checks reads.
    "platform refuses": State({"platform": "refused"}, {"platform": "http_status"}),
    "platform hangs": State({"platform": "hanging"}, {"platform": "timeout"}, **SILENT),
    # The API worker.
    "API worker dead": State({"api_worker": "dead"}, every("connect")),
    "API worker dead behind a proxy": State(
        {"api_worker": "dead", "proxy": "nginx"}, every("http_status", hfs=None, series=None)
    ),
    "API worker frozen": State({"api_worker": "frozen"}, every("timeout", hfs=None, series=None), **SILENT),
    # The HFS worker.
    "HFS worker dead": State({"hfs_worker": "dead"}, {"hfs": "http_status", "series": "http_status"}),
    "HFS worker dead behind a proxy": State(
        {"hfs_worker": "dead", "proxy": "nginx"}, {"hfs": "http_status", "series": "http_status"}
    ),
    "HFS worker frozen": State({"hfs_worker": "frozen"}, {"hfs": "timeout", "series": "timeout"}, **SILENT),
    "HFS worker frozen behind a proxy": State(
        {"hfs_worker": "frozen", "proxy": "nginx"}, {"hfs": "http_status", "series": "http_status"}
    ),
    "HFS worker stuck": State({"hfs_worker": "stuck"}, {"series": "timeout"}, **SILENT),
    "HFS worker off": State({"hfs_worker": "off"}, left_out=("hfs", "series")),
    "host name taken for a user by the HFS": State({}, {"series": "wrong_target"}, target={"host_header": "pryvhost.a.b"}),
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


@contextlib.asynccontextmanager
async def in_state(core: PryvCore, state: State, checks: tuple[str, ...], **target: Any) -> AsyncIterator[Reasons]:
    """Bring about a state and give the verdicts of the checks, and those expected."""
    if state.warm:
        warm = settings(url=core.url, username=core.username, token=core.token, checks=["registration"])
        assert reasons(await probe_once(warm)) == {"registration": None}
    for name, value in state.faults.items():
        setattr(core.faults, name, value)
    if state.setup and (done := state.setup(core)) is not None:
        await done
    keys = {"url": core.url, "username": core.username, "token": core.token, **ALWAYS_ASK, **target, **state.target}
    yield reasons(await probe_once(settings(**keys)))


@pytest.mark.parametrize("name", SINGLE_STATES)
async def test_a_single_core_in_every_state(name: str) -> None:
    state = SINGLE_STATES[name]
    async with PryvCore() as core, in_state(core, state, SINGLE) as seen:
        assert seen == expected(tuple(check for check in SINGLE if check not in state.left_out), state.failing)
