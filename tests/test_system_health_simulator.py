"""The simulated system health API, held to the documents of the real one."""

import asyncio
import json
import math
import ssl
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import trustme

from health_exporter.simulators.system_health import SystemHealth
from tests.conftest import until

REPORTS: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "fixtures" / "system_health_reports.json").read_text(encoding="utf-8")
)
PATHS = {"health": "/health", "detailed": "/health/detailed", "consistency": "/health/consistency"}
STATS = "/api/v1/stats/sftpgo"
KEY = {"X-API-Key": "simulated-api-key"}
SILENT = 0.1


@dataclass(frozen=True)
class Got:
    """What came back: `status` is the status, or how there was none."""

    status: int | str
    head: str = ""
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def ask(server: SystemHealth, path: str, headers: dict[str, str] | None = None, method: str = "GET") -> Got:
    """Ask over a connection of its own, with the key unless other headers are given."""
    lines = {"Host": "127.0.0.1", "Connection": "close", **(KEY if headers is None else headers)}
    text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    try:
        reader, writer = await asyncio.open_connection(server.server.host, server.server.port)
    except ConnectionRefusedError:
        return Got("refused")
    try:
        writer.write(f"{method} {path} HTTP/1.1\r\n{text}\r\n".encode())
        raw = await asyncio.wait_for(reader.read(1), SILENT) + await reader.read()
    except TimeoutError:
        return Got("silent")
    except ConnectionResetError:
        return Got("reset")
    finally:
        writer.close()
    head, _, body = raw.partition(b"\r\n\r\n")
    return Got(int(head.split()[1]), head.decode(), body)


def shape_of(value: Any) -> Any:
    """Return a document with types in place of values; a number is a number."""
    if isinstance(value, dict):
        return {key: shape_of(part) for key, part in value.items()}
    if isinstance(value, list):
        return [shape_of(part) for part in value]
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


@pytest.mark.parametrize("check", ["health", "detailed", "consistency"])
async def test_the_reports_have_the_documented_shape(check: str) -> None:
    async with SystemHealth() as server:
        server.faults.anomalies = {("stale_processing", "warn"): 3}
        server.faults.missing = frozenset({"config"})
        got = await ask(server, PATHS[check])
    assert got.status == 200
    assert "Content-Type: application/json" in got.head
    assert shape_of(got.json) == shape_of(REPORTS["page"][check])


@pytest.mark.parametrize("check", ["health", "detailed"])
async def test_the_older_reports_have_their_documented_shape(check: str) -> None:
    async with SystemHealth() as server:
        server.faults.shape = "older"
        got = await ask(server, PATHS[check])
    assert shape_of(got.json) == shape_of(REPORTS["older"][check])
    assert got.json["version"] == "v1.0.0"


async def test_an_older_server_knows_no_consistency_scan() -> None:
    async with SystemHealth() as server:
        server.faults.shape = "older"
        assert (await ask(server, PATHS["consistency"])).status == 404
        assert server.scans_started == 0


async def test_a_newer_build_has_a_date_only() -> None:
    async with SystemHealth() as server:
        server.faults.shape = "newer"
        assert (await ask(server, "/health")).json["build_timestamp"] == "2026-05-25"


@pytest.mark.parametrize(
    ("headers", "accepted"),
    [
        ({"X-API-Key": "simulated-api-key"}, True),
        ({"Authorization": "Bearer simulated-jwt"}, True),
        ({"Authorization": "simulated-jwt"}, False),
        ({"X-API-Key": "wrong"}, False),
        ({}, False),
    ],
)
async def test_only_the_plain_report_is_public(headers: dict[str, str], accepted: bool) -> None:
    async with SystemHealth() as server:
        assert (await ask(server, "/health", headers)).status == 200
        for path in (PATHS["detailed"], PATHS["consistency"], STATS):
            assert (await ask(server, path, headers)).status == (200 if accepted else 401)


@pytest.mark.parametrize(("refusal", "begin"), [("json", b"{"), ("text", b"Invalid"), ("empty", b"")])
async def test_an_expired_key_is_refused(refusal: Any, begin: bytes) -> None:
    async with SystemHealth() as server:
        server.faults.key, server.faults.refusal = "expired", refusal
        got = await ask(server, PATHS["detailed"])
        assert got.status == 401
        assert got.body.startswith(begin)
        assert (await ask(server, "/health")).status == 200
        server.faults.public_stats = True
        assert (await ask(server, STATS)).status == 200


@pytest.mark.parametrize(
    ("components", "word"),
    [
        ({}, "ok"),
        ({"postgres": "error"}, "degraded"),
        ({"new": "error"}, "degraded"),
        ({"redis": "degraded"}, "degraded"),
    ],
)
async def test_the_status_follows_from_the_components(components: dict[str, str], word: str) -> None:
    async with SystemHealth() as server:
        server.faults.components = components
        assert (await ask(server, "/health")).json["status"] == word
        detailed = (await ask(server, PATHS["detailed"])).json
        assert detailed["status"] == word
        assert {name: detailed["services"][name]["status"] for name in components} == components
        server.faults.status = "error"
        assert (await ask(server, "/health")).json["status"] == "error"


async def test_fields_can_be_replaced_and_left_out_while_it_runs() -> None:
    async with SystemHealth() as server:
        server.faults.replaced = {"resources.cpu_used_percent": "much", "no.such.place": 1, "status.inner": 1}
        server.faults.missing = frozenset({"services.redis", "version", "also.not.there"})
        got = (await ask(server, PATHS["detailed"])).json
        assert got["resources"]["cpu_used_percent"] == "much"
        assert set(got["services"]) == {"postgres", "qdrant"}
        assert not {"version", "no"} & set(got)
        server.faults.replaced, server.faults.missing = {}, frozenset()
        assert (await ask(server, PATHS["detailed"])).json["resources"]["cpu_used_percent"] == 12.5


PARTS: list[tuple[str, Any, tuple[str, ...], Any]] = [
    ("scripts_ready", False, ("pipeline", "scripts_ready"), False),
    ("scripts_modified", 13, ("pipeline", "scripts_integrity"), {"matched": 332, "total": 345, "ok": False}),
    ("models_ready", False, ("pipeline", "models_ready"), False),
    ("ffmpeg", False, ("pipeline", "ffmpeg"), False),
    ("processors_down", frozenset({"asr"}), ("pipeline", "processors", "asr"), False),
    ("migrations_missing", ("a.sql",), ("schema", "ok"), False),
    ("migrations_missing", ("a.sql",), ("schema", "required"), [{"filename": "a.sql"}]),
    ("identities", "out_of_sync", ("identities", "synced"), False),
    ("identities", "index_broken", ("identities", "index_ok"), False),
    ("identities", "no_directory", ("identities", "directory_exists"), False),
    ("tmdb", "disabled", ("integrations", "tmdb", "api_reachable"), None),
    ("tmdb", "reachable", ("integrations", "tmdb", "api_reachable"), True),
    ("tmdb", "unreachable", ("integrations", "tmdb", "api_reachable"), False),
    ("tmdb", "no_key", ("integrations", "tmdb", "api_key_configured"), False),
    ("toggles", {"cache": False}, ("config",), {"cache": False}),
]


@pytest.mark.parametrize(("fault", "value", "place", "seen"), PARTS)
async def test_a_fault_shows_at_its_place(fault: str, value: Any, place: tuple[str, ...], seen: Any) -> None:
    async with SystemHealth() as server:
        setattr(server.faults, fault, value)
        found = (await ask(server, PATHS["detailed"])).json
    for step in place:
        found = found[step]
    assert found == seen


@pytest.mark.parametrize(
    ("proxy", "status", "begin"),
    [
        ("login_page", 200, b"<!DOCTYPE html>"),
        ("login_page_401", 401, b"<!DOCTYPE html>"),
        ("redirect", 302, b""),
        ("rate_limit", 429, b"<html>"),
        ("bad_gateway", 502, b"<html>"),
        ("garbage", 200, b'{"status": "ok", "vers'),
        ("other_api", 200, b'{"data": []}'),
    ],
)
async def test_a_proxy_answers_in_its_place(proxy: Any, status: int, begin: bytes) -> None:
    async with SystemHealth() as server:
        server.faults.proxy = proxy
        for path in ("/health", PATHS["consistency"]):
            got = await ask(server, path)
            assert got.status == status
            assert got.body.startswith(begin)
        assert server.scans_started == 0


async def test_a_process_can_die_freeze_and_come_back() -> None:
    async with SystemHealth() as server:
        for process, seen in (("dead", "refused"), ("frozen", "silent"), ("up", 200)):
            server.faults.process = process  # type: ignore[assignment]
            assert (await ask(server, "/health")).status == seen


async def test_one_endpoint_can_hang() -> None:
    async with SystemHealth() as server:
        server.faults.hanging = frozenset({"detailed"})
        assert (await ask(server, PATHS["detailed"])).status == "silent"
        assert (await ask(server, "/health")).status == 200


async def test_reports_can_come_with_another_status_or_be_cut() -> None:
    async with SystemHealth() as server:
        server.faults.report_status = 503
        got = await ask(server, "/health")
        assert got.status == 503
        assert got.json["status"] == "ok"
        server.faults.reset_mid_answer = True
        assert (await ask(server, "/health")).status == "reset"


@pytest.mark.parametrize(("sftpgo", "status"), [("ok", 200), ("failing", 500), ("gone", 404)])
async def test_the_statistics_of_sftpgo(sftpgo: Any, status: int) -> None:
    async with SystemHealth() as server:
        server.faults.sftpgo = sftpgo
        assert (await ask(server, STATS)).status == status


@pytest.mark.parametrize(("method", "path", "status"), [("POST", "/health", 405), ("GET", "/other", 404)])
async def test_nothing_else_is_served(method: str, path: str, status: int) -> None:
    async with SystemHealth() as server:
        assert (await ask(server, path, method=method)).status == status


async def test_the_uptime_falls_with_a_restart() -> None:
    async with SystemHealth(uptime=100) as server:
        before = (await ask(server, "/health")).json["uptime_ms"]
        assert 100_000 <= before < 160_000
        server.restart()
        assert (await ask(server, "/health")).json["uptime_ms"] < before - 90_000


# --- scans ----------------------------------------------------------------------------------------------------------


async def test_a_scan_reports_its_anomalies_and_its_time() -> None:
    async with SystemHealth() as server:
        clean = (await ask(server, PATHS["consistency"])).json
        assert (clean["status"], clean["checks"]) == ("ok", [])
        assert datetime.fromisoformat(clean["checked_at"]).tzinfo is not None
        server.faults.anomalies = {("stale_processing", "warn"): 3, ("unregistered_with_uuid", "info"): 1}
        found = (await ask(server, PATHS["consistency"])).json
        assert found["status"] == "degraded"
        assert [(one["check"], one["severity"], one["count"]) for one in found["checks"]] == [
            ("stale_processing", "warn", 3),
            ("unregistered_with_uuid", "info", 1),
        ]
        assert server.scans_started == 2


async def test_a_scan_takes_its_time() -> None:
    async with SystemHealth() as server:
        server.faults.scan_seconds = SILENT / 10
        assert (await ask(server, PATHS["consistency"])).status == 200
        assert (server.scans_started, server.scans_running) == (1, 0)


async def test_a_scan_goes_on_when_its_client_has_gone_and_ends_when_told() -> None:
    async with SystemHealth() as server:
        server.faults.scan_seconds = math.inf
        assert (await ask(server, PATHS["consistency"])).status == "silent"
        await until(lambda: server.server.connections == 0)
        assert (server.scans_started, server.scans_running) == (1, 1)
        server.finish_scans()
        await until(lambda: server.scans_running == 0)


async def test_stopping_ends_every_scan() -> None:
    async with SystemHealth() as server:
        server.faults.scan_seconds = math.inf
        assert (await ask(server, PATHS["consistency"])).status == "silent"
    assert server.scans_running == 0


# --- TLS ------------------------------------------------------------------------------------------------------------


async def test_it_serves_https_if_told_so() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    async with SystemHealth(ssl=context) as server:
        assert server.url.startswith("https://127.0.0.1:")
