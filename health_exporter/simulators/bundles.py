"""Simulated MCP-bundle hosts: the health API as documented, as released, and as its own server would fill it.

The host is a small discrete simulation, run on by every request up to the time its clock gives, so that an hour of it
takes no time. Its constants were read in the server and measured: it looks after its bundles every 30 s and notices
only then that one is dead; it tries to restart that one 1, 2, 4, 8, 16 s later, five looks in a row; then it gives up
for 300 s (up to release 0.11: for ever). A bundle that lives for 30 s has its count set back to 0.
"""

import asyncio
import heapq
import itertools
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from ssl import SSLContext
from typing import Any, Literal

from health_exporter.simulators.wire import Answer, Hang, Reply, Request, Service

SWEEP = 30.0
BASE_DELAY = 1.0
MAX_RESTARTS = 5
COOLDOWN = 300.0
STABLE = 30.0
"""Seconds of life after which a sweep sets the count back."""
CRASH_LOOP_LIFE = 3.0
SLOW_CRASH_LIFE = 2400.0

Mode = Literal["public", "recon", "documented", "docs_variant"]
Release = Literal["0.12", "0.5", "0.1"]
State = Literal["healthy", "restarting", "cooldown", "dead", "stopped"]
Behaviour = Literal[
    "steady",
    "crash_loop",
    "doomed",
    "crash_once",
    "slow_crash",
    "hung",
    "uninstalled",
    "stopped",
    "remote_down_boot",
]

HEADERS = (
    ("Content-Type", "application/json"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "strict-origin-when-cross-origin"),
    ("Strict-Transport-Security", "max-age=31536000; includeSubDomains"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'"),
)
DOCUMENTED_STATES: dict[State, str] = {
    "healthy": "running",
    "restarting": "crashed",
    "cooldown": "crashed",
    "dead": "dead",
    "stopped": "stopped",
}
HEALTH, BUNDLES_HEALTH = "/v1/health", "/v1/bundles/health"


def _page(status: int, title: str) -> Answer:
    html = f"<!doctype html><html><head><title>{title}</title></head><body>{title}</body></html>"
    return Answer(status, (("Content-Type", "text/html; charset=utf-8"),), html.encode())


def _json(value: object, status: int = 200) -> Answer:
    return Answer(status, HEADERS, json.dumps(value, separators=(",", ":")).encode())


FRONTS: dict[str, Reply] = {
    "auth_wall": Answer(401),
    "login_page": _page(200, "Sign in"),
    "redirect": Answer(302, (("Location", "https://login.example.com/"),)),
    "rate_limit": _page(429, "Too Many Requests"),
    "error": _json({"error": "internal_error", "message": "Internal server error"}, 500),
    "garbage": Answer(200, HEADERS, b'{"status":"ok","bundles":[{"na'),
    "hang": Hang(),
}
NOT_FOUND: dict[str, Answer] = {
    "own": _json({"error": "not_found", "message": "Not found"}, 404),
    "page": _page(404, "404 Not Found"),
    "empty": Answer(404),
}


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle of a host and what becomes of it; `at` is seconds after the host's boot.

    crash_loop dies 3 s after every start, slow_crash 40 minutes after. crash_once dies at `at`; doomed does, too, and
    never starts again. hung lives and does nothing, which nobody sees. uninstalled is gone from `at` on and listed as
    dead. stopped was stopped by hand before boot. remote_down_boot is a remote bundle that was never reached.
    """

    name: str
    behaviour: Behaviour = "steady"
    at: float = 0.0

    def dies(self, boot: float, start: float) -> float | None:
        """Return when a process that starts at `start` dies, on the host's clock."""
        match self.behaviour:
            case "crash_loop":
                return start + CRASH_LOOP_LIFE
            case "slow_crash":
                return start + SLOW_CRASH_LIFE
            case "crash_once" | "doomed" | "uninstalled" if boot + self.at >= start:
                return boot + self.at
        return None

    def starts(self, *, again: bool) -> bool:
        """Return whether an attempt to start it succeeds."""
        return self.behaviour not in {"stopped", "remote_down_boot"} and not (again and self.behaviour == "doomed")


@dataclass(slots=True)
class BundleHostFaults:
    """What is wrong with a host or stands before it; every field may change while it runs.

    front: what answers instead of the host, on both APIs or `only` one. slow_seconds: real seconds before each answer.
    not_found: the body of a 404. entries: put at the end of every list as they are. states: words given in place of a
    bundle's state. left_out: keys missing in every entry. wrapped: /v1/bundles/health answers an object.
    """

    front: Literal["none", "auth_wall", "login_page", "redirect", "rate_limit", "error", "garbage", "hang"] = "none"
    only: Literal["both", "health", "bundles"] = "both"
    slow_seconds: float = 0.0
    not_found: Literal["own", "page", "empty"] = "own"
    entries: list[Any] = field(default_factory=list)
    states: dict[str, str] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()
    wrapped: bool = False


@dataclass(slots=True, eq=False)
class _Instance:
    """One bundle as its host sees it, and whether its process lives."""

    bundle: Bundle
    state: State = "healthy"
    alive: bool = False
    started: float | None = None
    count: int = 0
    cools_until: float = 0.0


class BundleHost(Service):
    """One host with bundles; bundles of one name are instances of it.

    `clock` gives seconds; the host boots when it is made. `mode` is what its API is like:

    - public: every release; /v1/bundles/health is 404, states are the server's own
    - recon: that call put back; milliseconds that grow in every state, null for what never started
    - documented: the documented states, seconds, 0 while down; the host's own uptime
    - docs_variant: as other pages of the documentation have it; milliseconds, null while down

    `release` is what becomes of a bundle that goes on dying: 0.12 cools down for 300 s and begins anew, 0.5 leaves it
    dead for ever, 0.1 does that too and never sets a count back.
    """

    def __init__(
        self,
        bundles: Iterable[Bundle] = (Bundle("bash"), Bundle("weather")),
        mode: Mode = "public",
        clock: Callable[[], float] = time.monotonic,
        *,
        release: Release = "0.12",
        version: str = "0.22.0",
        build_sha: str | None = "abc1234",
        ssl: SSLContext | None = None,
    ) -> None:
        super().__init__(self._handle, ssl)
        self.mode = mode
        self.clock = clock
        self.release = release
        self.version = version
        self.build_sha = build_sha
        self.faults = BundleHostFaults()
        self._bundles = tuple(bundles)
        self._restarts: Counter[str] = Counter()
        self._order = itertools.count()
        self._agenda: list[tuple[float, int, Callable[[float], None]]] = []
        self._instances: list[_Instance] = []
        self._booted = 0.0
        self._boot()

    # What happens to the host, and what really happened.

    def true_restarts(self, name: str) -> int:
        """Return how often the host has restarted the bundle, or tried to, since it was made: all instances together.

        An attempt counts when it begins. Boots of the whole host are no restarts of its bundles.
        """
        self._run_on()
        return self._restarts[name]

    def restart(self) -> None:
        """Boot the host again, at once; the order of its list is another afterwards, as it may be."""
        self._run_on()
        self._bundles = self._bundles[::-1]
        self._boot()

    def crash(self, name: str) -> None:
        """Let the processes of a bundle die now; the host notices at its next sweep."""
        for instance in self._named(name):
            instance.alive = False

    def restart_inline(self, name: str) -> None:
        """Restart a bundle as a tool call does that finds it dead: at once, and without a word in its count."""
        now = self.clock()
        for instance in self._named(name):
            if instance.bundle.starts(again=True):
                self._restarts[name] += 1
                self._start(instance, now, again=True)

    def listing(self) -> list[Any]:
        """Return what /v1/bundles/health lists now, faults included; in the mode public what recon would."""
        self._run_on()
        now = self.clock()
        entries: list[Any] = [self._entry(instance, now) for instance in self._instances]
        kept = [{key: value for key, value in entry.items() if key not in self.faults.left_out} for entry in entries]
        return [*kept, *self.faults.entries]

    def uptime(self) -> float:
        """Return the host's own uptime in seconds."""
        return self.clock() - self._booted

    # The simulation.

    def _boot(self) -> None:
        self._booted = now = self.clock()
        self._agenda.clear()
        self._instances = [_Instance(bundle) for bundle in self._bundles]
        for instance in self._instances:
            self._start(instance, now, again=False)
            if instance.bundle.behaviour == "stopped":
                instance.state = "stopped"
        self._plan(now + SWEEP, self._sweep)

    def _plan(self, when: float, action: Callable[[float], None]) -> None:
        heapq.heappush(self._agenda, (when, next(self._order), action))

    def _run_on(self) -> None:
        now = self.clock()
        while self._agenda and self._agenda[0][0] <= now:
            when, _, action = heapq.heappop(self._agenda)
            action(when)

    def _named(self, name: str) -> list[_Instance]:
        self._run_on()
        return [instance for instance in self._instances if instance.bundle.name == name]

    def _start(self, instance: _Instance, now: float, *, again: bool) -> None:
        if not instance.bundle.starts(again=again):
            instance.state = "restarting"
            return
        instance.state, instance.alive, instance.started = "healthy", True, now
        dies = instance.bundle.dies(self._booted, now)
        if dies is not None:
            self._plan(dies, partial(self._die, instance, now))

    def _die(self, instance: _Instance, started: float, _: float) -> None:
        if instance.started == started:
            instance.alive = False

    def _sweep(self, now: float) -> None:
        for instance in self._instances:
            self._look_after(instance, now)
        self._plan(now + SWEEP, self._sweep)

    def _look_after(self, instance: _Instance, now: float) -> None:
        if instance.state in {"dead", "stopped"} or (instance.state == "cooldown" and now < instance.cools_until):
            return
        if instance.alive:
            if self.release != "0.1" and now - (instance.started or 0.0) >= STABLE:
                instance.count = 0
        elif instance.bundle.behaviour == "uninstalled":
            instance.state = "dead"
        elif instance.count < MAX_RESTARTS:
            self._attempt(instance, now)
        elif self.release == "0.12":
            instance.state, instance.count, instance.cools_until = "cooldown", 0, now + COOLDOWN
        else:
            instance.state = "dead"

    def _attempt(self, instance: _Instance, now: float) -> None:
        delay = BASE_DELAY * 2**instance.count
        instance.count += 1
        instance.state = "restarting"
        self._restarts[instance.bundle.name] += 1
        self._plan(now + delay, partial(self._finish, instance))

    def _finish(self, instance: _Instance, now: float) -> None:
        if not instance.alive:
            self._start(instance, now, again=True)

    # The API.

    def _handle(self, request: Request) -> Reply | Awaitable[Reply]:
        return self._later(request) if self.faults.slow_seconds else self._answer(request)

    async def _later(self, request: Request) -> Reply:
        await asyncio.sleep(self.faults.slow_seconds)
        return self._answer(request)

    def _answer(self, request: Request) -> Reply:
        faults = self.faults
        api = {HEALTH: "health", BUNDLES_HEALTH: "bundles"}.get(request.path, "")
        if faults.front != "none" and faults.only in {"both", api}:
            return FRONTS[faults.front]
        if request.method == "HEAD" and api == "health":
            return Answer(200, HEADERS)
        if request.method == "GET":
            if api == "health":
                return _json(self._health())
            if api == "bundles" and self.mode != "public":
                return _json({"bundles": self.listing()} if faults.wrapped else self.listing())
        return NOT_FOUND[faults.not_found]

    def _health(self) -> dict[str, Any]:
        bundles = [
            {key: entry[key] for key in ("name", "state") if key in entry} if isinstance(entry, dict) else entry
            for entry in self.listing()
        ]
        if self.mode in {"public", "recon"}:
            return {"status": "ok", "version": self.version, "buildSha": self.build_sha, "bundles": bundles}
        return {"status": "ok", "uptime": int(self.uptime()), "bundles": bundles}

    def _entry(self, instance: _Instance, now: float) -> dict[str, Any]:
        started = instance.started
        uptime: int | None = None if started is None else round((now - started) * 1000)
        state: str = "dead" if instance.state == "stopped" else instance.state
        if self.mode in {"documented", "docs_variant"}:
            state = DOCUMENTED_STATES[instance.state]
            uptime = uptime if instance.state == "healthy" else None
        if self.mode == "documented":
            uptime = (uptime or 0) // 1000
        name = instance.bundle.name
        state = self.faults.states.get(name, state)
        return {"name": name, "state": state, "uptime": uptime, "restartCount": instance.count}
