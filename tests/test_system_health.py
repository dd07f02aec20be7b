"""The system health collector: the documented replies, every state of the simulator, and any reply at all."""

import asyncio
import copy
import json
import math
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from collectors.base import CheckReport
from collectors.http import HttpClient
from collectors.system_health import CHECKS, Settings
from collectors.system_health import SystemHealth as Collector
from health_exporter.config import ConfigError, load
from health_exporter.exposition import PLAIN, encode_target, join
from health_exporter.outcome import Outcome
from health_exporter.prober import Budget, Prober
from health_exporter.simulators.system_health import SystemHealth
from health_exporter.simulators.wire import Answer, Close, Raw, Reply, Request, Reset, Server
from tests.conftest import until
from tests.support import FakeClock, contexts_of, probe_once, prober_of, reasons, samples_of, settings

HERE = Path(__file__).parent
REPORTS: dict[str, dict[str, Any]] = json.loads(
    (HERE / "fixtures" / "system_health_reports.json").read_text(encoding="utf-8")
)
PATHS = {
    "/health": "health",
    "/health/detailed": "detailed",
    "/health/consistency": "consistency",
    "/api/v1/stats/sftpgo": "sftpgo",
}
KEY, TOKEN = "simulated-api-key", "simulated-jwt"
DEFAULT = CHECKS[:3]
SHORT = 0.3
"""The timeout of probes in which something never answers."""
LONG = 30.0
"""Seconds that no test waits out."""
JSON = (("Content-Type", "application/json"),)

Samples = dict[tuple[str, ...], float]


def server_settings(url: str, **keys: Any) -> Any:
    """Return the settings of a target with the simulator's key and every check, unless told otherwise."""
    return settings("system_health", url=url, **{"api_key": KEY, "checks": CHECKS} | keys)


def own(outcome: Outcome) -> Samples:
    """Return the samples of the collector's own metrics, by name without the prefix."""
    samples = samples_of(outcome)
    return {
        (key[0].removeprefix("system_health_"), *key[1:]): number
        for key, number in samples.items()
        if key[0].startswith("system_health_")
    }


def present(samples: Samples, name: str) -> set[tuple[str, ...]]:
    """Return the label values of a 0/1 metric that are 1."""
    return {key[1:] for key, number in samples.items() if key[0] == name and number == 1}


def replying(documents: dict[str, Any], status: int = 200) -> Callable[[Request], Reply]:
    """Return a handler that answers with these documents by check; 404 where there is none."""

    def answer(request: Request) -> Reply:
        check = PATHS[request.path]
        if check not in documents:
            return Answer(404)
        return Answer(status, JSON, json.dumps(documents[check]).encode())

    return answer


async def asked_of(handler: Callable[[Request], Reply | Awaitable[Reply]], **keys: Any) -> Outcome:
    """Probe a server with this handler once."""
    async with Server(handler) as server:
        return await probe_once(server_settings(f"http://127.0.0.1:{server.port}", **keys))


async def ask(prober: Prober, seconds: float = LONG) -> Outcome:
    return await prober.probe("t", Budget.starting_now(seconds))


# --- the documented replies -----------------------------------------------------------------------------------------


def status_of(word: str, *labels: str, name: str = "status") -> Samples:
    return {(name, *labels, known): float(known == word) for known in ("ok", "degraded", "error", "unknown")}


PAGE: Samples = {
    **status_of("ok"),
    ("info", "1.0.0", "3a6c1865"): 1,
    ("build_timestamp_seconds",): 1778938695,
    **{("component_up", name): 1 for name in ("postgres", "redis", "qdrant")},
    **status_of("ok", "postgres", name="component_status"),
    **status_of("ok", "redis", name="component_status"),
    **status_of("ok", "qdrant", name="component_status"),
    ("component_latency_seconds", "postgres"): 0.003,
    ("component_latency_seconds", "redis"): 0.001,
    ("component_latency_seconds", "qdrant"): 0.005,
    ("cpu_used_ratio",): 0.125,
    ("memory_used_ratio",): 0.317,
    ("memory_available_bytes",): 32 * 2**30,
    ("pipeline_scripts_ready",): 1,
    ("pipeline_scripts",): 345,
    ("pipeline_models_ready",): 1,
    ("pipeline_models",): 42,
    **{
        ("pipeline_processor_ready", name): 1
        for name in ("asr", "yolo", "face", "pose", "ocr", "cut", "scene", "asrx", "visual_chunk")
    },
    ("pipeline_scripts_checked",): 345,
    ("pipeline_scripts_intact",): 332,
    ("pipeline_scripts_integrity_ok",): 0,
    ("pipeline_ffmpeg_ready",): 1,
    ("schema_ok",): 1,
    ("schema_table_exists",): 1,
    ("schema_migrations_applied",): 1,
    ("schema_migrations_required",): 0,
    ("identities_directory_exists",): 1,
    ("identities_files",): 3481,
    ("identities_index_ok",): 1,
    ("identities_db_records",): 3481,
    ("identities_synced",): 1,
    ("integration_enabled", "tmdb"): 0,
    ("integration_api_key_configured", "tmdb"): 0,
    **status_of("degraded", name="consistency_status"),
    ("consistency_anomalies", "stale_processing", "warn"): 3,
    ("consistency_checked_timestamp_seconds",): 1779125400,
    ("fields_skipped",): 0,
}
OLDER: Samples = {
    **status_of("ok"),
    ("info", "v1.0.0", ""): 1,
    **{("component_up", name): 1 for name in ("postgres", "redis", "qdrant", "mongodb")},
    ("component_latency_seconds", "postgres"): 0.003,
    ("component_latency_seconds", "redis"): 0.001,
    ("component_latency_seconds", "qdrant"): 0.005,
    ("component_latency_seconds", "mongodb"): 0.008,
    **status_of("ok", "postgres", name="component_status"),
    **status_of("ok", "redis", name="component_status"),
    **status_of("ok", "qdrant", name="component_status"),
    **status_of("ok", "mongodb", name="component_status"),
    ("fields_skipped",): 0,
}
NEWER: Samples = {
    **status_of("degraded"),
    ("info", "1.0.0", "de88fd4e"): 1,
    ("build_timestamp_seconds",): 1779667200,
    ("component_up", "postgres"): 1,
    ("component_up", "redis"): 0,
    ("component_up", "qdrant"): 1,
    ("component_latency_seconds", "postgres"): 0.0025,
    ("component_latency_seconds", "qdrant"): 0.812,
    ("component_latency_seconds", "neo4j"): 0.001,
    **status_of("ok", "postgres", name="component_status"),
    **status_of("error", "redis", name="component_status"),
    **status_of("degraded", "qdrant", name="component_status"),
    **status_of("unknown", "neo4j", name="component_status"),
    ("pipeline_processor_ready", "asr"): 1,
    ("pipeline_processor_ready", "asrx"): 0,
    ("pipeline_processor_ready", "story"): 1,
    ("pipeline_ffmpeg_ready",): 0,
    ("integration_enabled", "tmdb"): 1,
    ("integration_api_key_configured", "tmdb"): 1,
    ("integration_api_reachable", "tmdb"): 0,
    ("integration_enabled", "sonarr"): 1,
    ("config_enabled", "cache"): 1,
    ("config_enabled", "auto_pipeline.enabled"): 0,
    **status_of("degraded", name="consistency_status"),
    ("consistency_anomalies", "stale_processing", "warn"): 5,
    ("consistency_anomalies", "unregistered_with_uuid", "info"): 7,
    ("consistency_anomalies", "orphaned_processing", "warn"): 0,
    ("consistency_anomalies", "new_kind", "unknown"): 1,
    ("consistency_checked_timestamp_seconds",): 1779723000.25,
    ("fields_skipped",): 0,
}


@pytest.mark.parametrize(
    ("shape", "published", "failing"),
    [("page", PAGE, {}), ("older", OLDER, {"consistency": "not_found"}), ("newer", NEWER, {})],
)
async def test_what_the_documented_replies_publish(shape: str, published: Samples, failing: dict[str, str]) -> None:
    outcome = await asked_of(replying(REPORTS[shape]), checks=DEFAULT)
    assert reasons(outcome) == {check: failing.get(check) for check in DEFAULT}
    samples = own(outcome)
    assert samples.pop(("start_time_seconds",)) > 0
    assert samples == pytest.approx(published, rel=1e-12)


def test_every_metric_of_the_table_is_published_by_some_documented_reply() -> None:
    published = {f"system_health_{key[0]}" for samples in (PAGE, OLDER, NEWER) for key in samples}
    assert {metric.name for metric in Collector.metrics} == {*published, "system_health_start_time_seconds"}


async def test_every_metric_of_the_table_is_published_of_a_simulated_server() -> None:
    async with SystemHealth() as server:
        server.faults.tmdb = "reachable"
        server.faults.anomalies = {("stale_processing", "warn"): 3}
        samples = own(await probe_once(server_settings(server.url)))
    assert {f"system_health_{key[0]}" for key in samples} == {metric.name for metric in Collector.metrics}
    assert samples["schema_table_exists",] == 1
    assert samples["consistency_checked_timestamp_seconds",] == pytest.approx(time.time(), abs=60)


# --- golden files ---------------------------------------------------------------------------------------------------

FLEETING = re.compile(
    r"^(probe_duration_seconds|probe_check_duration_seconds|probe_check_http_duration_seconds"
    r"|probe_check_asked_timestamp_seconds|system_health_start_time_seconds)(\{.*\}) \S+$",
    re.MULTILINE,
)


@pytest.mark.parametrize(("name", "shape"), [("system_health_page", "page"), ("system_health_newer", "newer")])
async def test_the_exposition_of_a_target_is_the_golden_one(name: str, shape: str, update_golden: bool) -> None:
    async with Server(replying({**REPORTS[shape], "sftpgo": {}})) as server:
        url = f"http://127.0.0.1:{server.port}"
        outcome = await probe_once(server_settings(url, name="media"))
        text = join([encode_target(outcome, 9.5, static_labels=True)], PLAIN).decode()
    text = FLEETING.sub(r"\1\2 1.0", text).replace(url, "http://127.0.0.1:3002")
    path = HERE / "golden" / f"{name}.prom"
    if update_golden:
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
    assert "private-name" not in text


# --- the states of a server -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class State:
    """A state of a server: its faults, which checks fail for which reasons, and samples it must (not) publish."""

    faults: dict[str, Any]
    failing: dict[str, str] = field(default_factory=dict)
    has: Samples = field(default_factory=dict)
    lacks: tuple[str, ...] = ()
    timeout: float = 5.0


def every(reason: str, *but: str) -> dict[str, str]:
    return {check: reason for check in CHECKS if check not in but}


STATES: dict[str, State] = {
    "healthy": State({}, has={("status", "ok"): 1, ("component_up", "postgres"): 1, ("fields_skipped",): 0}),
    "postgres in error": State(
        {"components": {"postgres": "error"}},
        has={("component_up", "postgres"): 0, ("component_up", "redis"): 1, ("status", "degraded"): 1},
    ),
    "redis in error": State({"components": {"redis": "error"}}, has={("component_up", "redis"): 0}),
    "qdrant in error": State({"components": {"qdrant": "error"}}, has={("component_up", "qdrant"): 0}),
    "a component nobody has heard of in error": State(
        {"components": {"mongodb": "error", "neo4j": "error"}},
        has={("component_up", "mongodb"): 0, ("component_up", "neo4j"): 0},
    ),
    "a component degraded": State(
        {"components": {"qdrant": "degraded"}},
        has={("component_up", "qdrant"): 1, ("component_status", "qdrant", "degraded"): 1, ("status", "degraded"): 1},
    ),
    "a component with a word that is not known": State(
        {"components": {"qdrant": "napping"}},
        has={("component_status", "qdrant", "unknown"): 1, ("component_latency_seconds", "qdrant"): 0.005},
        lacks=("component_up qdrant",),
    ),
    "a component gone": State({"components": {"qdrant": None}}, lacks=("component_up qdrant",)),
    "degraded without a cause": State(
        {"status": "degraded"}, has={("status", "degraded"): 1, ("status", "ok"): 0, ("component_up", "redis"): 1}
    ),
    "in error": State({"status": "error"}, has={("status", "error"): 1}),
    "a status in capitals": State({"status": "OK"}, has={("status", "ok"): 1}),
    "a status that is not known": State({"status": "maintenance"}, has={("status", "unknown"): 1}),
    "sections missing": State(
        {"missing": frozenset({"resources", "pipeline", "schema", "identities", "integrations", "config"})},
        has={("component_up", "postgres"): 1, ("fields_skipped",): 0},
        lacks=("cpu_used_ratio", "pipeline_scripts", "schema_ok", "identities_synced", "config_enabled cache"),
    ),
    "services missing": State({"missing": frozenset({"services"})}, has={("cpu_used_ratio",): 0.125}),
    "older shape": State(
        {"shape": "older"},
        {"consistency": "not_found"},
        has={("info", "v1.0.0", ""): 1, ("component_up", "mongodb"): 1},
        lacks=("cpu_used_ratio", "build_timestamp_seconds"),
    ),
    "newer shape": State(
        {"shape": "newer"}, has={("info", "1.2.0", "de88fd4e"): 1, ("build_timestamp_seconds",): 1779667200}
    ),
    "fields of wrong types": State(
        {
            "replaced": {
                "resources.cpu_used_percent": "12.5",
                "resources.memory_used_percent": True,
                "resources.memory_available_mb": -1,
                "pipeline.scripts_ready": 1,
                "pipeline.processors.asr": "yes",
                "services.redis": "ok",
                "services.qdrant.latency_ms": [],
                "schema": [],
                "identities.files_count": 10**400,
                "config": "none",
            }
        },
        has={
            ("fields_skipped",): 10,
            ("pipeline_scripts",): 345,
            ("component_up", "postgres"): 1,
            ("component_up", "qdrant"): 1,
            ("identities_synced",): 1,
            ("pipeline_processor_ready", "yolo"): 1,
        },
        lacks=(
            "cpu_used_ratio",
            "memory_used_ratio",
            "memory_available_bytes",
            "pipeline_scripts_ready",
            "pipeline_processor_ready asr",
            "component_up redis",
            "component_latency_seconds qdrant",
            "schema_ok",
            "identities_files",
            "config_enabled cache",
        ),
    ),
    "migrations that are no lists": State(
        {"replaced": {"schema.applied": 5, "schema.required": {"a": 1}}},
        has={("schema_ok",): 1, ("fields_skipped",): 2},
        lacks=("schema_migrations_applied", "schema_migrations_required"),
    ),
    "nulls": State(
        {
            "replaced": {
                "version": None,
                "resources.cpu_used_percent": None,
                "pipeline.processors.asr": None,
                "services.redis": None,
                "services.qdrant.status": None,
                "schema": None,
                "integrations.tmdb": None,
                "config": None,
                "checks": None,
            }
        },
        has={("fields_skipped",): 0, ("component_latency_seconds", "qdrant"): 0.005},
        lacks=("cpu_used_ratio", "pipeline_processor_ready asr", "component_up qdrant", "schema_ok"),
    ),
    "key expired": State(
        {"key": "expired"}, every("auth", "health"), has={("status", "ok"): 1}, lacks=("component_up postgres",)
    ),
    "key expired, refused in plain text": State({"key": "expired", "refusal": "text"}, every("auth", "health")),
    "key expired, refused without a word": State({"key": "expired", "refusal": "empty"}, every("auth", "health")),
    "key expired, statistics public": State(
        {"key": "expired", "public_stats": True}, every("auth", "health", "sftpgo")
    ),
    "503 with a health report": State(
        {"report_status": 503, "components": {"postgres": "error"}},
        every("unhealthy", "sftpgo"),
        has={("status", "degraded"): 1, ("component_up", "postgres"): 0, ("consistency_status", "ok"): 1},
    ),
    "login page": State({"proxy": "login_page"}, every("wrong_target"), lacks=("fields_skipped", "status ok")),
    "login page with 401": State({"proxy": "login_page_401"}, every("wrong_target")),
    "redirect": State({"proxy": "redirect"}, every("redirect")),
    "rate limit": State({"proxy": "rate_limit"}, every("http_status")),
    "bad gateway": State({"proxy": "bad_gateway"}, every("http_status")),
    "garbage": State({"proxy": "garbage"}, every("decode", "sftpgo")),
    "another API": State({"proxy": "other_api"}, every("wrong_target", "sftpgo")),
    "process dead": State({"process": "dead"}, every("connect")),
    "process frozen": State({"process": "frozen"}, every("timeout"), timeout=SHORT),
    "detailed hangs": State(
        {"hanging": frozenset({"detailed"})}, {"detailed": "timeout"}, has={("status", "ok"): 1}, timeout=SHORT
    ),
    "reset in the middle of an answer": State({"reset_mid_answer": True}, every("disconnect", "sftpgo")),
    "scan without end": State({"scan_seconds": math.inf}, {"consistency": "timeout"}, timeout=SHORT),
    "slow scan": State({"scan_seconds": 0.05}, has={("consistency_status", "ok"): 1}),
    "SFTPGo failing": State({"sftpgo": "failing"}, {"sftpgo": "http_status"}),
    "SFTPGo statistics gone": State({"sftpgo": "gone"}, {"sftpgo": "not_found"}),
    "migrations missing": State(
        {"migrations_missing": ("a.sql", "b.sql")},
        has={("schema_ok",): 0, ("schema_migrations_required",): 2, ("schema_migrations_applied",): 1},
    ),
    "identities out of sync": State(
        {"identities": "out_of_sync"},
        has={("identities_synced",): 0, ("identities_db_records",): 3479, ("identities_files",): 3481},
    ),
    "index of identities broken": State({"identities": "index_broken"}, has={("identities_index_ok",): 0}),
    "no directory of identities": State({"identities": "no_directory"}, has={("identities_directory_exists",): 0}),
    "scripts modified": State(
        {"scripts_modified": 13},
        has={
            ("pipeline_scripts_integrity_ok",): 0,
            ("pipeline_scripts_intact",): 332,
            ("pipeline_scripts_checked",): 345,
        },
    ),
    "pipeline not ready": State(
        {"scripts_ready": False, "models_ready": False, "ffmpeg": False, "processors_down": frozenset({"asr"})},
        has={
            ("pipeline_scripts_ready",): 0,
            ("pipeline_models_ready",): 0,
            ("pipeline_ffmpeg_ready",): 0,
            ("pipeline_processor_ready", "asr"): 0,
            ("pipeline_processor_ready", "yolo"): 1,
        },
    ),
    "integration reachable": State({"tmdb": "reachable"}, has={("integration_api_reachable", "tmdb"): 1}),
    "integration unreachable": State(
        {"tmdb": "unreachable"},
        has={("integration_enabled", "tmdb"): 1, ("integration_api_reachable", "tmdb"): 0},
    ),
    "integration without key": State(
        {"tmdb": "no_key"},
        has={("integration_enabled", "tmdb"): 1, ("integration_api_key_configured", "tmdb"): 0},
        lacks=("integration_api_reachable tmdb",),
    ),
    "toggles": State(
        {
            "toggles": {
                "cache": False,
                "watcher": {"auto_register": True, "deep": {"er": True}, "seconds": 5},
                "mode": "x",
            }
        },
        has={("config_enabled", "cache"): 0, ("config_enabled", "watcher.auto_register"): 1, ("fields_skipped",): 0},
        lacks=("config_enabled mode", "config_enabled watcher.seconds", "config_enabled watcher.deep"),
    ),
    "anomalies": State(
        {"anomalies": {("stale_processing", "warn"): 3, ("unregistered_with_uuid", "info"): 4.0}},
        has={
            ("consistency_status", "degraded"): 1,
            ("consistency_anomalies", "stale_processing", "warn"): 3,
            ("consistency_anomalies", "unregistered_with_uuid", "info"): 4,
            ("status", "ok"): 1,
        },
    ),
}


@pytest.mark.parametrize("name", STATES)
async def test_a_server_in_every_state(name: str) -> None:
    state = STATES[name]
    async with SystemHealth() as server:
        target = server_settings(server.url, timeout=state.timeout)
        for fault, value in state.faults.items():
            setattr(server.faults, fault, value)
        outcome = await probe_once(target)
    assert reasons(outcome) == {check: state.failing.get(check) for check in CHECKS}
    samples = own(outcome)
    assert {key: samples.get(key) for key in state.has} == state.has
    assert not {" ".join(key) for key in samples} & set(state.lacks)


@pytest.mark.parametrize(("plain", "detailed", "status"), [("ok", "error", "error"), ("degraded", None, "degraded")])
async def test_the_status_is_that_of_the_detailed_report_if_it_answered(
    plain: str, detailed: str | None, status: str
) -> None:
    documents = {"health": {**REPORTS["page"]["health"], "status": plain}}
    if detailed is not None:
        documents["detailed"] = {**REPORTS["page"]["detailed"], "status": detailed}
    outcome = await asked_of(replying(documents), checks=["health", "detailed"])
    assert present(own(outcome), "status") == {(status,)}


async def test_a_detailed_report_without_status_leaves_it_to_the_plain_one() -> None:
    documents = {"health": {"status": "degraded"}, "detailed": {"services": {}, "status": None}}
    outcome = await asked_of(replying(documents), checks=["health", "detailed"])
    assert present(own(outcome), "status") == {("degraded",)}


async def test_the_detailed_report_alone_gives_status_version_and_start() -> None:
    outcome = await asked_of(replying(REPORTS["older"]), checks=["detailed"])
    samples = own(outcome)
    assert present(samples, "status") == {("ok",)}
    assert samples["info", "v1.0.0", ""] == 1
    assert ("start_time_seconds",) in samples


async def test_what_is_known_when_the_request_must_be_answered_stands_beside_the_timeout() -> None:
    async with SystemHealth() as server:
        server.faults.hanging = frozenset({"detailed", "consistency"})
        outcome = await probe_once(server_settings(server.url, checks=DEFAULT, timeout=LONG), 0.3)
    assert reasons(outcome) == {"health": None, "detailed": "timeout", "consistency": "timeout"}
    assert present(own(outcome), "status") == {("ok",)}


# --- reasons --------------------------------------------------------------------------------------------------------

HTML = Answer(200, (("Content-Type", "text/html"),), b"\xef\xbb\xbf \n<html></html>")


def of_json(document: object, status: int = 200) -> Answer:
    return Answer(status, JSON, json.dumps(document).encode())


ANSWERS: list[tuple[str, Reply, str | None]] = [
    ("health", of_json({"status": "ok"}), None),
    ("health", of_json({"status": "UP"}), "wrong_target"),
    ("health", of_json({"status": "up", "version": "2"}), None),
    ("health", of_json({"version": "2", "uptime_ms": 1, "status": 5}), None),
    ("health", of_json({"version": "2"}), "wrong_target"),
    ("health", of_json([]), "wrong_target"),
    ("health", of_json("ok"), "wrong_target"),
    ("health", Answer(200, (), b"OK"), "wrong_target"),
    ("health", Answer(200, (), b""), "wrong_target"),
    ("health", Answer(200, JSON, b'{"status": "ok", "uptime_ms": NaN}'), "decode"),
    ("health", Answer(200, JSON, b"[" * 100_000), "too_large"),
    ("health", of_json({"status": "ok"}, 404), "not_found"),
    ("health", of_json({"status": "ok", "version": "1"}, 404), "not_found"),
    ("health", of_json({"status": "ok", "version": "1"}, 429), "http_status"),
    ("health", of_json({"status": "ok", "version": "1"}, 201), "http_status"),
    ("health", of_json({"status": "error", "version": "1"}, 503), "unhealthy"),
    ("health", of_json({"status": "error", "message": "database"}, 500), "http_status"),
    ("health", of_json({"status": "failed", "version": "1"}, 500), "http_status"),
    ("health", of_json({"status": 500, "version": "1"}, 500), "http_status"),
    ("health", Answer(503, JSON, b'{"status": "error", "ver'), "http_status"),
    ("health", Answer(503, JSON, b"[" * 100_000), "too_large"),
    ("health", Answer(503), "http_status"),
    ("health", Answer(421), "wrong_target"),
    ("health", Answer(301, (("Location", "/"),)), "redirect"),
    ("health", Close(), "disconnect"),
    ("health", Reset(), "disconnect"),
    ("health", Raw(b"not HTTP\r\n\r\n"), "disconnect"),
    ("detailed", of_json(REPORTS["page"]["health"]), "wrong_target"),
    ("detailed", of_json({"services": {}}), None),
    ("detailed", of_json({"config": None}), None),
    ("detailed", of_json({"services": {}, "status": "error"}, 500), "unhealthy"),
    ("detailed", of_json({"error": "no such key"}, 401), "auth"),
    ("detailed", of_json({"error": "not yours"}, 403), "auth"),
    ("detailed", Answer(401), "auth"),
    ("detailed", Answer(401, (), b"Missing API key"), "auth"),
    ("detailed", Answer(401, HTML.headers, HTML.body), "wrong_target"),
    ("consistency", of_json(REPORTS["page"]["health"]), "wrong_target"),
    ("consistency", of_json({"checked_at": None}), None),
    ("consistency", of_json({"checks": []}), None),
    ("consistency", of_json({"checks": {}}), None),
    ("consistency", of_json({"checks": [], "status": "degraded"}, 503), "unhealthy"),
    ("consistency", Answer(404), "not_found"),
    ("sftpgo", Answer(204), None),
    ("sftpgo", Answer(200, (), b"anything"), None),
    ("sftpgo", of_json([1, 2]), None),
    ("sftpgo", HTML, "wrong_target"),
    ("sftpgo", Answer(401), "auth"),
    ("sftpgo", of_json({}, 403), "auth"),
    ("sftpgo", Answer(401, HTML.headers, HTML.body), "wrong_target"),
    ("sftpgo", Answer(503, HTML.headers, HTML.body), "http_status"),
    ("sftpgo", Answer(404), "not_found"),
]


@pytest.mark.parametrize(("check", "reply", "reason"), ANSWERS)
async def test_every_answer_gives_its_verdict(check: str, reply: Reply, reason: str | None) -> None:
    outcome = await asked_of(lambda _: reply, checks=[check])
    assert reasons(outcome) == {check: reason}


# --- what is read ---------------------------------------------------------------------------------------------------

TIMES = [
    ("2026-05-16T13:38:15Z", 1778938695.0),
    ("2026-05-16t13:38:15z", 1778938695.0),
    ("2026-05-16T13:38:15.5+02:00", 1778931495.5),
    ("2026-05-16T13:38:15.123456789Z", 1778938695.123456),
    ("2026-05-25", 1779667200.0),
    ("2026-05-25T00:00:00", 1779667200.0),
    ("0001-01-01T00:00:00+14:00", -62135647200.0),
    ("yesterday", None),
    ("", None),
    ("2026-02-30", None),
    (1778938695, None),
    ("\ud800", None),
]


@pytest.mark.parametrize(("written", "seconds"), TIMES)
async def test_a_time_is_rfc_3339_or_a_date(written: object, seconds: float | None) -> None:
    document = {"status": "ok", "build_timestamp": written}
    samples = own(await asked_of(replying({"health": document}), checks=["health"]))
    assert samples.get(("build_timestamp_seconds",)) == seconds
    assert samples["fields_skipped",] == (seconds is None)


@pytest.fixture
def far_from_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


async def test_a_day_begins_at_midnight_utc_wherever_the_exporter_runs(far_from_greenwich: None) -> None:
    samples = own(await asked_of(replying(REPORTS["newer"]), checks=["health"]))
    assert samples["build_timestamp_seconds",] == 1779667200


async def test_texts_of_a_reply_are_made_fit_for_labels() -> None:
    documents = {
        "health": {"status": "ok", "version": "\ud800\x00" + "v" * 300, "build_git_hash": 'a"\\\n'},
        "detailed": {
            "services": {"\udfff\x01": {"status": "\ud800"}},
            "pipeline": {"processors": {"A\ud800": True}},
            "config": {"\x00": True},
        },
        "consistency": {
            "checks": [
                {"check": "a\x01", "severity": "\ud800", "count": 1},
                {"check": "a\x02", "severity": "\udfff", "count": 2},
            ]
        },
    }
    outcome = await asked_of(replying(documents), checks=DEFAULT)
    samples = own(outcome)
    info = next(key for key in samples if key[0] == "info")
    assert len(info[1]) == 209
    assert info[1].startswith("��vvv")
    assert info[2] == 'a"\\�'
    assert samples["component_status", "��", "unknown"] == 1
    assert samples["pipeline_processor_ready", "a�"] == 1
    assert samples["config_enabled", "�"] == 1
    assert samples["consistency_anomalies", "a�", "�"] == 3
    join([encode_target(outcome, 9.5, static_labels=True)], PLAIN)


@pytest.mark.parametrize(
    ("entries", "counts", "skipped"),
    [
        ([{"check": "a", "count": 1}, {"check": "a", "count": 2, "severity": "unknown"}], {("a", "unknown"): 3}, 0),
        ([{"check": "a", "severity": 5, "count": 1}], {("a", "unknown"): 1}, 1),
        ([{"check": "a", "severity": "", "count": 1}], {("a", "unknown"): 1}, 0),
        ([{"check": "a", "severity": "warn"}, {"check": "b", "severity": "warn", "count": 1}], {("b", "warn"): 1}, 1),
        ([{"severity": "warn", "count": 4}, "text", 5, [], {}, None], {}, 5),
        ([{"check": None, "count": 1}, {"check": "a", "count": None}, {"check": "a", "count": -1}], {}, 3),
        ([], {}, 0),
        ({"a": 1}, {}, 1),
    ],
)
async def test_a_bad_anomaly_costs_no_other_and_is_counted(
    entries: Any, counts: dict[tuple[str, str], float], skipped: int
) -> None:
    outcome = await asked_of(replying({"consistency": {"status": "ok", "checks": entries}}), checks=["consistency"])
    samples = own(outcome)
    assert reasons(outcome) == {"consistency": None}
    assert {key[1:]: number for key, number in samples.items() if key[0] == "consistency_anomalies"} == counts
    assert samples["fields_skipped",] == skipped


async def test_the_skipped_fields_of_all_replies_are_counted_together_also_of_a_remembered_one() -> None:
    documents = {
        "health": {"status": "ok", "uptime_ms": "long"},
        "detailed": {"services": 5, "version": 1},
        "consistency": {"status": [], "checks": []},
    }
    clock = FakeClock()
    async with Server(replying(documents)) as server:
        target = server_settings(f"http://127.0.0.1:{server.port}", checks=DEFAULT)
        async with prober_of(target, clock=clock.clock) as prober:
            for _ in range(2):
                assert own(await ask(prober))["fields_skipped",] == 4
            server.handler = lambda _: Answer(500)
            assert own(await ask(prober))["fields_skipped",] == 1
            clock.advance(300)
            assert ("fields_skipped",) not in own(await ask(prober))


def many(names: int) -> dict[str, Any]:
    return {f"n{number}": True for number in range(names)}


TOO_MANY: dict[str, dict[str, Any]] = {
    "detailed": {
        "services": {name: {"status": "ok"} for name in many(1001)},
        "pipeline": {"processors": many(1001), "ffmpeg": True},
        "integrations": {name: {"enabled": True} for name in many(1001)},
        "config": many(3),
    },
    "consistency": {
        "checked_at": "2026-05-25",
        "checks": [{"check": "same", "severity": str(number), "count": 1} for number in range(1001)],
    },
}


async def test_too_many_names_fail_the_check_and_cost_nothing_else() -> None:
    checks = ["detailed", "consistency"]
    outcome = await asked_of(replying(TOO_MANY), checks=checks)
    assert reasons(outcome) == dict.fromkeys(checks, "too_large")
    samples = own(outcome)
    assert samples["pipeline_ffmpeg_ready",] == 1
    assert samples["consistency_checked_timestamp_seconds",] == 1779667200
    assert present(samples, "config_enabled") == {("n0",), ("n1",), ("n2",)}
    assert len(present(samples, "component_up")) == 1000


async def test_as_many_names_as_allowed_pass() -> None:
    documents = {"detailed": {"services": {name: {"status": "ok", "latency_ms": 1} for name in many(1000)}}}
    outcome = await asked_of(replying(documents), checks=["detailed"])
    assert reasons(outcome) == {"detailed": None}
    assert len(present(own(outcome), "component_status")) == 1000


async def test_large_replies_are_read_like_small_ones() -> None:
    filler = {"filler": "x" * 300_000}
    documents: dict[str, Any] = {check: {**filler, **REPORTS["page"][check]} for check in DEFAULT}
    samples = own(await asked_of(replying(documents), checks=DEFAULT))
    del samples["start_time_seconds",]
    assert samples == pytest.approx(PAGE, rel=1e-12)
    outcome = await asked_of(
        replying({check: {**filler, **TOO_MANY[check]} for check in TOO_MANY}), checks=["detailed", "consistency"]
    )
    assert reasons(outcome) == {"detailed": "too_large", "consistency": "too_large"}
    assert own(outcome)["pipeline_ffmpeg_ready",] == 1


# --- the start time -------------------------------------------------------------------------------------------------


async def test_the_start_time_stays_still_until_the_server_restarts() -> None:
    uptime = 10_000.0
    clock = FakeClock()

    def answer(request: Request) -> Reply:
        return of_json({**REPORTS["page"][PATHS[request.path]], "uptime_ms": uptime})

    async with Server(answer) as server:
        target = server_settings(f"http://127.0.0.1:{server.port}", checks=["health", "detailed"])
        async with prober_of(target, clock=clock.clock) as prober:
            first = own(await ask(prober))["start_time_seconds",]
            assert first == pytest.approx(1_800_000_000 - 10, abs=1)
            for drift in (900, -900, 1500, -1500):
                clock.advance(15)
                uptime += 15_000
                uptime, exact = uptime + drift, uptime
                assert own(await ask(prober))["start_time_seconds",] == first
                uptime = exact
            clock.advance(15)
            uptime = 1000.0
            assert own(await ask(prober))["start_time_seconds",] == pytest.approx(clock.now - 1, abs=1)


async def test_of_two_uptimes_the_one_that_comes_first_gives_the_start_time() -> None:
    documents = {check: {**REPORTS["older"][check], "uptime_ms": 10_000} for check in ("health", "detailed")}
    documents["detailed"]["uptime_ms"] = 15_000
    clock = FakeClock()
    async with Server(replying(documents)) as server:
        target = server_settings(f"http://127.0.0.1:{server.port}", checks=["health", "detailed"])
        async with HttpClient("tests", clock.clock).probe(target, contexts_of(target)[target.tls_config]) as http:
            collector = Collector(target, Collector.new_memory(), http, clock.clock)
            await collector.health(CheckReport("health"))
            await collector.detailed(CheckReport("detailed"))
    started = {sample.metric.name: sample.number for sample in collector.conclude({}).samples}
    assert started["system_health_start_time_seconds"] == pytest.approx(clock.now - 10, abs=1)


async def test_a_restart_of_the_simulator_is_seen() -> None:
    async with SystemHealth() as server, prober_of(server_settings(server.url, checks=["health"])) as prober:
        before = own(await ask(prober))["start_time_seconds",]
        assert own(await ask(prober))["start_time_seconds",] == before
        server.restart()
        assert own(await ask(prober))["start_time_seconds",] == pytest.approx(before + 3600, abs=2)


# --- credentials ----------------------------------------------------------------------------------------------------

CREDENTIALS: list[tuple[dict[str, Any], tuple[str, str]]] = [
    ({"api_key": KEY}, ("x-api-key", KEY)),
    ({"bearer_token": TOKEN}, ("authorization", f"Bearer {TOKEN}")),
]


@pytest.mark.parametrize(("credential", "header"), CREDENTIALS)
@pytest.mark.parametrize("in_file", [False, True])
async def test_the_credential_goes_where_it_is_needed_and_nowhere_else(
    credential: dict[str, Any], header: tuple[str, str], in_file: bool, tmp_path: Path
) -> None:
    if in_file:
        (key, secret), *_ = credential.items()
        (tmp_path / "secret").write_text(f"{secret}\n", encoding="utf-8")
        credential = {f"{key}_file": "secret"}
    async with SystemHealth() as server:
        target = settings("system_health", tmp_path, url=server.url, checks=CHECKS, **credential)
        assert reasons(await probe_once(target)) == dict.fromkeys(CHECKS)
        sent = {PATHS[request.path]: request for request in server.server.requests}
    name, value = header
    assert {check: request.headers.get(name) for check, request in sent.items()} == {
        "health": None,
        **dict.fromkeys(CHECKS[1:], value),
    }
    assert not any(KEY in request.target or TOKEN in request.target for request in sent.values())


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        ({}, ("health",)),
        ({"api_key": KEY}, ("health", "detailed", "consistency")),
        ({"bearer_token": TOKEN}, ("health", "detailed", "consistency")),
        ({"checks": ["sftpgo", "health"]}, ("health", "sftpgo")),
        ({"checks": ["detailed"]}, ("detailed",)),
    ],
)
def test_the_default_checks_are_those_the_credential_allows(keys: dict[str, Any], names: tuple[str, ...]) -> None:
    assert settings("system_health", url="http://localhost:3002", **keys).check_names() == names


async def test_without_a_credential_nothing_is_sent_and_the_refusal_is_auth() -> None:
    async with SystemHealth() as server:
        target = settings("system_health", url=server.url, checks=["health", "detailed"])
        assert reasons(await probe_once(target)) == {"health": None, "detailed": "auth"}
        assert not any({"authorization", "x-api-key"} & set(request.headers) for request in server.server.requests)


async def test_a_changed_key_is_sent_at_once(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("old-and-refused", encoding="utf-8")
    clock = FakeClock()
    async with SystemHealth() as server:
        target = settings("system_health", tmp_path, url=server.url, api_key_file="key")
        async with prober_of(target, clock=clock.clock) as prober:
            assert reasons(await ask(prober)) == {"health": None, "detailed": "auth", "consistency": "auth"}
            assert server.scans_started == 0
            file.write_text(KEY, encoding="utf-8")
            assert reasons(await ask(prober)) == dict.fromkeys(DEFAULT)


# --- settings -------------------------------------------------------------------------------------------------------

HERE_URL: dict[str, Any] = {"url": "https://media.example.com"}
RULES: list[tuple[dict[str, Any], list[str]]] = [
    ({}, []),
    ({"api_key": "k"}, []),
    ({"api_key": "k", "api_key_file": "f"}, ["api_key_file"]),
    ({"api_key": "k", "bearer_token": "t"}, ["bearer_token"]),
    ({"bearer_token": "t", "bearer_token_file": "f"}, ["bearer_token_file"]),
    ({"api_key_file": "f", "bearer_token_file": "f"}, ["bearer_token_file"]),
    ({"bearer_token": "t", "basic_auth": {"username": "u", "password": "p"}}, ["basic_auth"]),
    ({"bearer_token_file": "f", "headers": {"authorization": "x"}}, ["headers"]),
    ({"bearer_token": "t", "header_files": {"Authorization": "x"}}, ["header_files"]),
    ({"api_key": "k", "headers": {"x-api-key": "x"}}, ["headers"]),
    ({"api_key": "k", "basic_auth": {"username": "u", "password": "p"}}, []),
    ({"api_key": "k", "headers": {"Authorization": "x", "X-Tenant": "a"}}, []),
    ({"bearer_token": "t", "headers": ["not a mapping"]}, []),
    ({"headers": {"Authorization": "x"}}, []),
]


@pytest.mark.parametrize(("written", "broken"), RULES)
def test_at_most_one_credential_and_its_header_is_free(written: dict[str, Any], broken: list[str]) -> None:
    assert [key for key, _ in Settings.rules({**HERE_URL, **written})] == broken


@pytest.mark.parametrize(
    "keys",
    [
        {"checks": []},
        {"checks": ["health", "health"]},
        {"checks": ["ping"]},
        {"checks": "health"},
        {"consistency_interval": "often"},
        {"consistency_interval": -1},
        {"api_key": ""},
        {"api_key": 5},
        {"bearer_token_file": "no-such-file"},
        {"unknown_key": 1},
    ],
)
def test_a_setting_that_cannot_be_is_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings("system_health", **HERE_URL, **keys)


def test_a_config_file_has_its_error_at_its_place(tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    path.write_text(
        "targets:\n  - name: media\n    collector: system_health\n    url: http://localhost:3002\n"
        "    api_key: simulated-a\n    bearer_token: simulated-b\n",
        encoding="utf-8",
    )
    with pytest.raises(ConfigError) as refused:
        load(path, {"system_health": Settings})
    assert str(refused.value) == (f"{path}:6:5: targets[0].bearer_token: give only one of api_key and bearer_token")


def test_secrets_are_masked_and_a_key_over_plain_http_is_told() -> None:
    target = settings("system_health", url="http://media.example.com", api_key=KEY)
    assert KEY not in repr(target)
    assert KEY not in target.model_dump_json()
    assert target.sent_secret_keys() == ("api_key",)


# --- the consistency scan -------------------------------------------------------------------------------------------


@asynccontextmanager
async def scanning(**keys: Any) -> AsyncIterator[tuple[SystemHealth, Prober, FakeClock]]:
    """Give a server whose scan is the only check, its prober and its clock."""
    clock = FakeClock()
    async with SystemHealth() as server:
        target = server_settings(server.url, **{"checks": ["consistency"]} | keys)
        async with prober_of(target, clock=clock.clock) as prober:
            yield server, prober, clock


async def test_a_scan_is_asked_for_once_an_interval_and_its_answer_reused() -> None:
    async with scanning() as (server, prober, clock):
        server.faults.anomalies = {("stale_processing", "warn"): 3}
        first = await ask(prober)
        server.faults.anomalies = {}
        clock.advance(299)
        again = await ask(prober)
        assert server.scans_started == 1
        assert own(again) == own(first)
        assert samples_of(again)["probe_check_asked_timestamp_seconds", "consistency"] == 1_800_000_000
        assert ("probe_check_duration_seconds", "consistency") not in samples_of(again)
        clock.advance(1)
        assert ("consistency_anomalies", "stale_processing", "warn") not in own(await ask(prober))
        assert server.scans_started == 2


async def test_the_interval_can_be_set_and_zero_asks_every_time() -> None:
    async with scanning(consistency_interval="10s") as (server, prober, clock):
        for _ in range(4):
            await ask(prober)
            clock.advance(5)
        assert server.scans_started == 2
    async with scanning(consistency_interval=0) as (server, prober, _):
        for _ in range(3):
            await ask(prober)
        assert server.scans_started == 3


@pytest.mark.parametrize(
    ("faults", "reason"),
    [({"report_status": 503}, "unhealthy"), ({"proxy": "bad_gateway"}, "http_status"), ({"key": "expired"}, "auth")],
)
async def test_a_failed_scan_is_asked_for_again_after_a_minute_and_not_before(
    faults: dict[str, Any], reason: str
) -> None:
    async with scanning() as (server, prober, clock):
        for name, value in faults.items():
            setattr(server.faults, name, value)
        assert reasons(await ask(prober)) == {"consistency": reason}
        server.faults.report_status, server.faults.proxy, server.faults.key = 200, "none", "valid"
        clock.advance(59.9)
        assert reasons(await ask(prober)) == {"consistency": reason}
        assert len(server.server.requests) == 1
        clock.advance(0.1)
        assert reasons(await ask(prober)) == {"consistency": None}


async def test_a_scan_that_outlasts_the_check_is_not_begun_again_for_a_minute() -> None:
    async with scanning(timeout=SHORT) as (server, prober, clock):
        server.faults.scan_seconds = math.inf
        first = await ask(prober)
        assert reasons(first) == {"consistency": "timeout"}
        assert server.scans_running == 1
        clock.advance(59.9)
        again = await ask(prober)
        assert reasons(again) == {"consistency": "timeout"}
        assert samples_of(again)["probe_check_asked_timestamp_seconds", "consistency"] == 1_800_000_000
        assert server.scans_started == 1
        server.finish_scans()
        server.faults.scan_seconds = 0
        clock.advance(0.1)
        assert reasons(await ask(prober)) == {"consistency": None}
        assert server.scans_started == 2


async def test_a_scan_that_outlasts_the_request_is_not_begun_again_for_a_minute() -> None:
    async with scanning(timeout=LONG) as (server, prober, clock):
        server.faults.scan_seconds = math.inf
        assert reasons(await ask(prober, 0.3)) == {"consistency": "timeout"}
        assert reasons(await ask(prober)) == {"consistency": "timeout"}
        clock.advance(59.9)
        assert reasons(await ask(prober)) == {"consistency": "timeout"}
        assert server.scans_started == 1


async def test_a_scan_nobody_waits_for_any_more_is_not_begun_again_for_a_minute() -> None:
    async with scanning(timeout=LONG) as (server, prober, clock):
        server.faults.scan_seconds = math.inf
        request = asyncio.create_task(ask(prober))
        await until(lambda: server.scans_running == 1)
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
        again = await ask(prober)
        assert reasons(again) == {"consistency": "timeout"}
        assert samples_of(again)["probe_check_asked_timestamp_seconds", "consistency"] == 1_800_000_000
        assert ("probe_check_duration_seconds", "consistency") not in samples_of(again)
        clock.advance(59.9)
        assert reasons(await ask(prober)) == {"consistency": "timeout"}
        assert server.scans_started == 1
        clock.advance(0.1)
        server.faults.scan_seconds = 0
        assert reasons(await ask(prober)) == {"consistency": None}
        assert server.scans_started == 2


async def test_requests_at_once_share_one_scan() -> None:
    async with scanning() as (server, prober, _):
        server.faults.scan_seconds = math.inf
        requests = [asyncio.create_task(ask(prober)) for _ in range(3)]
        await until(lambda: server.scans_running == 1)
        server.finish_scans()
        assert [reasons(outcome) for outcome in await asyncio.gather(*requests)] == [{"consistency": None}] * 3
        assert server.scans_started == 1


async def test_a_changed_key_does_not_begin_a_scan_beside_one_that_may_go_on(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(KEY, encoding="utf-8")
    clock = FakeClock()
    async with SystemHealth() as server:
        server.faults.scan_seconds = math.inf
        target = settings(
            "system_health", tmp_path, url=server.url, api_key_file="key", checks=["consistency"], timeout=SHORT
        )
        async with prober_of(target, clock=clock.clock) as prober:
            assert reasons(await ask(prober)) == {"consistency": "timeout"}
            file.write_text("another-simulated-key", encoding="utf-8")
            server.api_key = "another-simulated-key"
            assert reasons(await ask(prober)) == {"consistency": "timeout"}
            assert server.scans_started == 1


# --- any reply at all -----------------------------------------------------------------------------------------------

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["ok", "degraded", "error", "2026-05-25", "\ud800", 10**400, 1e308, -0.0])
)
KEYS = st.sampled_from(
    [
        *REPORTS["page"]["health"],
        *REPORTS["page"]["detailed"],
        *REPORTS["page"]["detailed"]["pipeline"],
        *REPORTS["page"]["detailed"]["identities"],
        *REPORTS["page"]["detailed"]["integrations"]["tmdb"],
        *REPORTS["page"]["consistency"],
        "config",
        "latency_ms",
        "severity",
        "count",
        "\ud800",
    ]
) | st.text(max_size=5)
ANY_JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=20
)
STATUSES = st.sampled_from([200, 200, 200, 204, 302, 401, 403, 404, 421, 429, 500, 503])
ANY_REPLY = st.one_of(
    st.builds(of_json, ANY_JSON, STATUSES),
    st.builds(Answer, STATUSES, st.just(JSON), st.binary(max_size=40)),
    st.builds(Raw, st.binary(max_size=60)),
    st.builds(of_json, st.dictionaries(KEYS, st.floats(), max_size=5), STATUSES),
    st.sampled_from([Close(), Reset(), HTML]),
)


def without_start(samples: Samples) -> Samples:
    return {key: number for key, number in samples.items() if key != ("start_time_seconds",)}


@hypothesis_settings(deadline=None, max_examples=150)
@given(st.lists(ANY_REPLY, min_size=len(CHECKS), max_size=len(CHECKS)))
async def test_any_answer_ends_as_a_verdict(replies: list[Reply]) -> None:
    outcome = await asked_of(lambda request: replies[CHECKS.index(PATHS[request.path])], timeout=2)
    assert "internal" not in reasons(outcome).values()
    keys = [(sample.metric, sample.values) for sample in outcome.samples(5.0)]
    assert len(keys) == len(set(keys))
    assert all(math.isfinite(number) for number in own(outcome).values())
    join([encode_target(outcome, 5.0, static_labels=True)], PLAIN)


def places_in(document: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to every value of a document."""
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [place for key, value in items for place in ((*way, key), *places_in(value, (*way, key)))]


PLACES = [(check, way) for check in DEFAULT for way in places_in(REPORTS["newer"][check])]


@hypothesis_settings(deadline=None, max_examples=150)
@given(st.sampled_from(PLACES), SCALARS | ANY_JSON)
async def test_whatever_stands_in_one_place_costs_no_other_place_its_samples(
    place: tuple[str, tuple[Any, ...]], value: Any
) -> None:
    check, way = place
    documents = copy.deepcopy(REPORTS["newer"])
    holder = documents[check]
    for step in way[:-1]:
        holder = holder[step]
    holder[way[-1]] = None
    async with Server(replying(documents)) as server:
        url = f"http://127.0.0.1:{server.port}"
        absent = without_start(own(await probe_once(server_settings(url, checks=DEFAULT))))
        holder[way[-1]] = value
        outcome = await probe_once(server_settings(url, checks=DEFAULT))
    samples = without_start(own(outcome))
    assert reasons(outcome) == dict.fromkeys(DEFAULT)
    told_by_several_places = ("status", "info", "consistency_anomalies")
    assert {key for key in absent if key[0] not in told_by_several_places} <= set(samples)


WRONG: list[tuple[str, tuple[Any, ...]]] = [
    place
    for place in PLACES
    if not any(step in ("files", "config") for step in place[1]) and place[1] not in (("checks",), ("services",))
]


@pytest.mark.parametrize("place", WRONG, ids=str)
async def test_a_field_of_the_wrong_type_is_skipped_and_counted(place: tuple[str, tuple[Any, ...]]) -> None:
    check, way = place
    documents = copy.deepcopy(REPORTS["newer"])
    holder = documents[check]
    for step in way[:-1]:
        holder = holder[step]
    holder[way[-1]] = None
    without = own(await asked_of(replying(documents), checks=DEFAULT))
    holder[way[-1]] = {"wrong": ["type"]} if way[-1] not in ("processors", "integrations", "tmdb") else ["wrong"]
    if way[-1] in ("pipeline", "postgres", "redis", "qdrant", "neo4j", "sonarr"):
        holder[way[-1]] = 5
    outcome = await asked_of(replying(documents), checks=DEFAULT)
    samples = own(outcome)
    assert reasons(outcome) == dict.fromkeys(DEFAULT)
    assert samples.pop(("fields_skipped",)) == 1
    without.pop(("fields_skipped",))
    assert without_start(samples) == without_start(without)
