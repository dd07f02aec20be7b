"""A simulated system health API (Momentry Core): its health reports, its consistency scan, its SFTPGo statistics.

Built from the API's documents, since no server could be measured: what they leave open (the body of a refusal, the
keys of `config`, the statistics' shape) is made up here. A consistency scan goes on when its client has gone.
"""

# ruff: noqa: S107 - the credentials are simulated

import asyncio
import json
import math
import time
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ssl import SSLContext
from typing import Any, Literal

from health_exporter.simulators.wire import Answer, Faults, Hang, Raw, Reply, Request, Reset, Service, render

PATHS = {
    "/health": "health",
    "/health/detailed": "detailed",
    "/health/consistency": "consistency",
    "/api/v1/stats/sftpgo": "sftpgo",
}
PROCESSORS = ("asr", "yolo", "face", "pose", "ocr", "cut", "scene", "asrx", "visual_chunk")
LATENCIES = {"postgres": 3, "redis": 1, "qdrant": 5, "mongodb": 8}
SCRIPTS = 345
IDENTITIES = 3481
JSON = (("Content-Type", "application/json"),)

SIGN_IN = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body><form></form></body></html>\n"
PROXY_ANSWERS: Mapping[str, Answer] = {
    "login_page": Answer(200, (("Content-Type", "text/html"),), SIGN_IN),
    "login_page_401": Answer(401, (("Content-Type", "text/html"),), SIGN_IN),
    "redirect": Answer(302, (("Location", "https://login.example.com/"), ("Content-Type", "text/html"))),
    "rate_limit": Answer(429, (("Content-Type", "text/html"),), b"<html><h1>429 Too Many Requests</h1></html>"),
    "bad_gateway": Answer(502, (("Content-Type", "text/html"),), b"<html><h1>502 Bad Gateway</h1></html>"),
    "garbage": Answer(200, JSON, b'{"status": "ok", "vers'),
    "other_api": Answer(200, JSON, b'{"data": []}'),
}
REFUSALS: Mapping[str, Answer] = {
    "json": Answer(401, JSON, b'{"success":false,"message":"Unauthorized"}'),
    "text": Answer(401, (("Content-Type", "text/plain; charset=utf-8"),), b"Invalid API key"),
    "empty": Answer(401),
}
IDENTITY_STATES: Mapping[str, Mapping[str, object]] = {
    "synced": {},
    "out_of_sync": {"db_count": IDENTITIES - 2, "synced": False},
    "index_broken": {"index_ok": False},
    "no_directory": {"directory_exists": False, "files_count": 0, "index_ok": False, "synced": False},
}
TMDB_STATES: Mapping[str, Mapping[str, object]] = {
    "disabled": {"api_key_configured": False, "enabled": False, "api_reachable": None},
    "reachable": {"api_key_configured": True, "enabled": True, "api_reachable": True},
    "unreachable": {"api_key_configured": True, "enabled": True, "api_reachable": False},
    "no_key": {"api_key_configured": False, "enabled": True, "api_reachable": None},
}

CheckName = Literal["health", "detailed", "consistency", "sftpgo"]


@dataclass(slots=True)
class SystemHealthFaults(Faults):
    """What is broken in a server; every field may change while it runs, the defaults are a healthy server.

    process: dead refuses connections; frozen never answers. hanging: the endpoints that never answer.
    proxy: what stands before the server, and what it answers instead. reset_mid_answer: half of an answer, then RST.
    shape: older is that of 2026-04 (v1.0.0, uptime_ms and mongodb in detailed, no section but services, no scan);
    newer gives the build as a date.
    components: status words over those that follow; other names are added, None takes one away.
    status: the word for the whole, instead of the one that follows from the components.
    missing: dotted paths that are left out of the reports. replaced: values by dotted path, of whatever type.
    report_status: HTTP status of the health reports.
    key: an expired one is refused; refusal is the body of that 401. public_stats: SFTPGo's need no credential.
    scan_seconds: how long a scan takes; infinite ones end with `finish_scans`. anomalies: counts by (check, severity).
    """

    process: Literal["up", "dead", "frozen"] = "up"
    hanging: frozenset[CheckName] = frozenset()
    proxy: Literal[
        "none", "login_page", "login_page_401", "redirect", "rate_limit", "bad_gateway", "garbage", "other_api"
    ] = "none"
    reset_mid_answer: bool = False
    shape: Literal["older", "current", "newer"] = "current"
    components: Mapping[str, str | None] = field(default_factory=dict)
    status: str | None = None
    missing: frozenset[str] = frozenset()
    replaced: Mapping[str, object] = field(default_factory=dict)
    report_status: int = 200
    key: Literal["valid", "expired"] = "valid"
    refusal: Literal["json", "text", "empty"] = "json"
    scan_seconds: float = 0.0
    anomalies: Mapping[tuple[str, str], float] = field(default_factory=dict)
    processors_down: frozenset[str] = frozenset()
    scripts_ready: bool = True
    scripts_modified: int = 0
    models_ready: bool = True
    ffmpeg: bool = True
    migrations_missing: tuple[str, ...] = ()
    identities: Literal["synced", "out_of_sync", "index_broken", "no_directory"] = "synced"
    tmdb: Literal["disabled", "reachable", "unreachable", "no_key"] = "disabled"
    toggles: Mapping[str, object] = field(
        default_factory=lambda: {"cache": True, "auto_pipeline": False, "watcher_auto_register": True}
    )
    sftpgo: Literal["ok", "failing", "gone"] = "ok"
    public_stats: bool = False


class SystemHealth(Service):
    """A server; `scans_started` counts the scans it was made to begin."""

    def __init__(
        self,
        api_key: str = "simulated-api-key",
        bearer_token: str = "simulated-jwt",
        *,
        uptime: float = 3600.0,
        ssl: SSLContext | None = None,
    ) -> None:
        super().__init__(self._handle, ssl)
        self.api_key = api_key
        self.bearer_token = bearer_token
        self.faults = SystemHealthFaults()
        self.scans_started = 0
        self._scans: set[asyncio.Task[None]] = set()
        self._finished = asyncio.Event()
        self._began = time.monotonic() - uptime

    @property
    def scans_running(self) -> int:
        """The number of scans under way, whether or not somebody waits for them."""
        return len(self._scans)

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen; port 0 takes a free one."""
        await super().start(host, port)
        self.faults.on_change = self._open_or_shut
        self._open_or_shut()

    async def stop(self) -> None:
        """Close everything and end every scan."""
        self.faults.on_change = None
        for scan in self._scans:
            scan.cancel()
        await asyncio.gather(*self._scans, return_exceptions=True)
        await super().stop()

    def restart(self) -> None:
        """Begin anew: the uptime falls to nothing."""
        self._began = time.monotonic()

    def finish_scans(self) -> None:
        """Let every scan under way end."""
        self._finished.set()
        self._finished = asyncio.Event()

    def _open_or_shut(self) -> None:
        if self.faults.process == "dead":
            self.server.cut()
        else:
            self.server.reopen()

    def _handle(self, request: Request) -> Reply | Awaitable[Reply]:
        faults, check = self.faults, PATHS.get(request.path)
        if faults.proxy in PROXY_ANSWERS:
            return PROXY_ANSWERS[faults.proxy]
        if faults.process == "frozen" or check in faults.hanging:
            return Hang()
        if request.method not in ("GET", "HEAD"):
            return Answer(405, (("Allow", "GET,HEAD"),))
        public = check in (None, "health") or (check == "sftpgo" and faults.public_stats)
        if not public and not self._accepts(request.headers):
            return REFUSALS[faults.refusal]
        return self._answer(check)

    def _answer(self, check: str | None) -> Reply | Awaitable[Reply]:
        match check:
            case "health":
                return self._report(self._health())
            case "detailed":
                return self._report(self._detailed())
            case "consistency" if self.faults.shape != "older":
                return self._scan()
            case "sftpgo":
                return self._sftpgo()
        return Answer(404)

    def _accepts(self, headers: Mapping[str, str]) -> bool:
        given = (
            headers.get("authorization") == f"Bearer {self.bearer_token}" or headers.get("x-api-key") == self.api_key
        )
        return given and self.faults.key == "valid"

    def _report(self, values: dict[str, Any]) -> Reply:
        """Answer with a report, after the faults have been at it."""
        for path, value in self.faults.replaced.items():
            *way, last = path.split(".")
            if (holder := _part(values, way)) is not None:
                holder[last] = value
        for path in self.faults.missing:
            *way, last = path.split(".")
            (_part(values, way) or {}).pop(last, None)
        answer = Answer(self.faults.report_status, JSON, json.dumps(values, separators=(",", ":")).encode())
        if self.faults.reset_mid_answer:
            data = render(answer)
            return Raw(data[: len(data) - len(answer.body) // 2], Reset())
        return answer

    def _uptime_ms(self) -> int:
        return int((time.monotonic() - self._began) * 1000)

    def _status(self) -> str:
        """Return degraded as soon as any component is not ok: the server says error of components only."""
        well = all(one["status"] == "ok" for one in self._services().values())
        return self.faults.status or ("ok" if well else "degraded")

    def _health(self) -> dict[str, Any]:
        match self.faults.shape:
            case "older":
                build = {"version": "v1.0.0"}
            case "newer":
                build = {"version": "1.2.0", "build_git_hash": "de88fd4e", "build_timestamp": "2026-05-25"}
            case _:
                build = {"version": "1.0.0", "build_git_hash": "3a6c1865", "build_timestamp": "2026-05-16T13:38:15Z"}
        return {"status": self._status(), **build, "uptime_ms": self._uptime_ms()}

    def _services(self) -> dict[str, dict[str, Any]]:
        names = ("postgres", "redis", "qdrant", "mongodb") if self.faults.shape == "older" else (*LATENCIES,)[:3]
        words: dict[str, str | None] = {**dict.fromkeys(names, "ok"), **self.faults.components}
        return {
            name: {"status": word, "latency_ms": LATENCIES.get(name, 2)}
            for name, word in words.items()
            if word is not None
        }

    def _detailed(self) -> dict[str, Any]:
        health = self._health()
        values = {"status": health["status"], "version": health["version"], "services": self._services()}
        if self.faults.shape == "older":
            return {**values, "uptime_ms": health["uptime_ms"]}
        return {
            **values,
            "resources": {"cpu_used_percent": 12.5, "memory_available_mb": 32768, "memory_used_percent": 31.7},
            "pipeline": self._pipeline(),
            "schema": self._schema(),
            "identities": {
                "directory_exists": True,
                "files_count": IDENTITIES,
                "index_ok": True,
                "db_count": IDENTITIES,
                "synced": True,
                **IDENTITY_STATES[self.faults.identities],
            },
            "integrations": {"tmdb": dict(TMDB_STATES[self.faults.tmdb])},
            "config": dict(self.faults.toggles),
        }

    def _pipeline(self) -> dict[str, Any]:
        faults = self.faults
        matched = SCRIPTS - faults.scripts_modified
        return {
            "scripts_ready": faults.scripts_ready,
            "scripts_count": SCRIPTS,
            "processors": {name: name not in faults.processors_down for name in PROCESSORS},
            "models_ready": faults.models_ready,
            "models_count": 42,
            "scripts_integrity": {"matched": matched, "total": SCRIPTS, "ok": matched == SCRIPTS},
            "ffmpeg": faults.ffmpeg,
        }

    def _schema(self) -> dict[str, Any]:
        missing = self.faults.migrations_missing
        return {
            "table_exists": True,
            "applied": [{"filename": "migrate_add_users_table.sql"}],
            "required": [{"filename": name} for name in missing],
            "ok": not missing,
        }

    def _scan(self) -> Reply | Awaitable[Reply]:
        self.scans_started += 1
        seconds = self.faults.scan_seconds
        if not seconds:
            return self._report(self._findings())
        scan = asyncio.create_task(self._scanning(None if math.isinf(seconds) else seconds))
        self._scans.add(scan)
        scan.add_done_callback(self._scans.discard)

        async def wait() -> Reply:
            await asyncio.shield(scan)
            return self._report(self._findings())

        return wait()

    async def _scanning(self, seconds: float | None) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._finished.wait()

    def _findings(self) -> dict[str, Any]:
        file = {
            "file_name": "video.mp4",
            "file_uuid": "00000000-aaaa",
            "status": "processing",
            "detail": "job_id is null",
        }
        checks = [
            {"check": check, "severity": severity, "count": count, "files": [file]}
            for (check, severity), count in self.faults.anomalies.items()
        ]
        return {
            "status": self.faults.status or ("degraded" if checks else "ok"),
            "checked_at": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            "checks": checks,
        }

    def _sftpgo(self) -> Reply:
        match self.faults.sftpgo:
            case "failing":
                return Answer(500, JSON, b'{"success":false,"message":"SFTPGo is not reachable"}')
            case "gone":
                return Answer(404)
        return Answer(200, JSON, b'{"success":true,"status":"running"}')


def _part(values: Any, way: list[str]) -> dict[str, Any] | None:
    """Return the object at the end of the way, None if there is none."""
    for step in way:
        values = values.get(step) if isinstance(values, dict) else None
    return values if isinstance(values, dict) else None
