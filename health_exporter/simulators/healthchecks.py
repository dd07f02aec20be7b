"""A simulated Healthchecks server: the Management API v3 calls a monitor makes, with the answers measured on v4.4-dev.

One project with a read-only and a read-write key, a second one that neither key may see, and a clock that may be
virtual: checks move through their states as time passes, as in the real server. The status is worked out whenever it is
read; only the alert loop (sendalerts) writes that a check went down, and from then on it has no next ping.
"""

import asyncio
import gzip
import hashlib
import json
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from functools import lru_cache
from ssl import SSLContext
from typing import Any, Literal
from urllib.parse import parse_qs
from uuid import NAMESPACE_URL, UUID, uuid5
from zoneinfo import ZoneInfo

from health_exporter.simulators.wire import Answer, Close, Hang, Reply, Request, Service

READ_ONLY_KEY = "hcr_simulatedReadOnlyKey00000000"
READ_WRITE_KEY = "hcw_simulatedReadWriteKey0000000"
KEY_LENGTH = 32
WORTH_COMPRESSING = 200
LONGEST_WINDOW = 31_536_000

Release = Literal["v4.4", "v3.4", "document"]
"""v3.4 gives no uuid and no badge; the API document shows fewer fields still, and flips as a bare array."""
PingKind = Literal["success", "fail", "start", "log", "ignored"]


# --- checks ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Job:
    """What pings a check by itself: a run every `every` seconds, from `at` on (Unix time, or the first look).

    With `takes` the start is signalled, and the end so many seconds later. Of `fails_every` runs the last one fails.
    """

    every: float
    takes: float = 0.0
    fails_every: int = 0
    at: float | None = None
    stopped: bool = False
    under_way: bool = False
    runs: int = 0


@dataclass(slots=True, eq=False)
class SimulatedCheck:
    """A check: expected every `timeout` seconds, or by a cron `schedule` in `tz` if there is one.

    `state` is what the database holds: new, up, down or paused; flips are (Unix time, up), in the order written.
    """

    name: str = ""
    slug: str = ""
    tags: str = ""
    desc: str = ""
    grace: int = 3600
    timeout: int = 86_400
    schedule: str = ""
    tz: str = "UTC"
    uuid: UUID = UUID(int=0)
    job: Job | None = None
    state: Literal["new", "up", "down", "paused"] = "new"
    n_pings: int = 0
    last_ping: float | None = None
    last_start: float | None = None
    last_duration: float | None = None
    flips: list[tuple[float, int]] = field(default_factory=list)
    unique_key: str = field(init=False, default="")

    def __post_init__(self) -> None:
        """Work out the uuid, if none is given, and the unique key."""
        if not self.uuid.int:
            words = json.dumps([self.name, self.slug, self.tags, self.schedule, self.timeout])
            self.uuid = uuid5(NAMESPACE_URL, words)
        self.unique_key = hashlib.sha1(self.uuid.hex[:16].encode(), usedforsecurity=False).hexdigest()

    def ping(self, now: float, kind: PingKind = "success") -> None:
        """Receive a ping."""
        self.n_pings += 1
        if kind == "start":
            self.last_start = now
        elif kind in ("success", "fail"):
            self.last_duration = None if self.last_start is None else now - self.last_start
            self.last_start, self.last_ping = None, now
            state: Literal["up", "down"] = "up" if kind == "success" else "down"
            if self.state != state:
                self.state = state
                self.flips.append((now, int(state == "up")))

    def pause(self, now: float) -> None:
        """Pause it, which is written as a flip to down."""
        if self.state != "paused":
            self.state, self.last_start = "paused", None
            self.flips.append((now, 0))

    def resume(self, now: float) -> None:
        """Resume it as if it were new; written as a flip to down again."""
        if self.state == "paused":
            self.state, self.last_start, self.last_ping = "new", None, None
            self.flips.append((now, 0))

    def status(self, now: float) -> str:
        """Return the status as the API gives it."""
        if self.last_start is not None and now >= self.last_start + self.grace:
            return "down"
        expected = self._expected()
        if self.state != "up" or expected is None or now < expected:
            return self.state
        return "down" if now >= expected + self.grace else "grace"

    def next_ping(self) -> float | None:
        """Return when it becomes late: what is expected next, or the start of the run under way."""
        moments = [self._expected(), None if self.state == "down" else self.last_start]
        return min((moment for moment in moments if moment is not None), default=None)

    def advance(self, now: float, *, alerting: bool) -> None:
        """Let time pass up to now: the job's pings, and the alert loop."""
        job = self.job
        if job is not None and job.at is None:
            job.at = now
        while True:
            event = None if job is None or job.stopped else job.at
            until = now if event is None else min(event, now)
            expected = self.next_ping()
            if alerting and expected is not None and expected + self.grace <= until:
                self.state = "down"
                self.flips.append((expected + self.grace, 0))
            elif job is not None and event is not None and event <= now:
                self._run(job, event)
            else:
                return

    def _expected(self) -> float | None:
        if self.state != "up" or self.last_ping is None:
            return None
        return next_run(self.schedule, self.tz, self.last_ping) if self.schedule else self.last_ping + self.timeout

    def _run(self, job: Job, at: float) -> None:
        if job.takes and not job.under_way:
            job.under_way, job.at = True, at + job.takes
            self.ping(at, "start")
            return
        job.under_way, job.at = False, at + job.every - job.takes
        job.runs += 1
        self.ping(at, "fail" if job.fails_every and job.runs % job.fails_every == 0 else "success")


@lru_cache(maxsize=20_000)
def next_run(schedule: str, tz: str, after: float) -> float | None:
    """Return when a cron schedule is next due, Unix time.

    None if that is never within a year, and for OnCalendar: all of its dates are taken as past.
    """
    fields = schedule.split()
    if len(fields) != 5:  # noqa: PLR2004
        return None
    bounds = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
    minutes, hours, days, months, weekdays = map(_numbers, fields, bounds)
    zone = ZoneInfo(tz)
    today = datetime.fromtimestamp(after, zone).date()
    for ahead in range(367):
        day = today + timedelta(days=ahead)
        if day.day in days and day.month in months and day.isoweekday() % 7 in weekdays:
            due = _first_after(after, day, hours, minutes, zone)
            if due is not None:
                return due
    return None


def _first_after(after: float, day: date, hours: list[int], minutes: list[int], zone: ZoneInfo) -> float | None:
    for hour in hours:
        for minute in minutes:
            moment = datetime.combine(day, time_of_day(hour, minute), zone).timestamp()
            if moment > after:
                return moment
    return None


def _numbers(text: str, bounds: tuple[int, int]) -> list[int]:
    """Read a cron field: `*`, `*/n`, or numbers and ranges with commas between."""
    low, high = bounds
    if text.startswith("*"):
        return list(range(low, high + 1, int(text[2:] or 1)))
    numbers: set[int] = set()
    for part in text.split(","):
        begin, _, end = part.partition("-")
        numbers.update(range(int(begin), int(end or begin) + 1))
    return sorted(numbers)


def example_checks(now: float) -> list[SimulatedCheck]:
    """Return a small project with a check in every state, and jobs that go on pinging."""
    hour = 3600.0

    def check(name: str, tags: str, **keys: Any) -> SimulatedCheck:
        return SimulatedCheck(name, name.lower().replace(" ", "-"), tags, **keys)

    checks = [
        check("Filesystem backup", "backup fs prod", timeout=300, grace=120, job=Job(300, takes=20, at=now - 900)),
        check("Queue worker", "queue prod", timeout=60, grace=60, job=Job(60, at=now - 600)),
        check("Database dump", "backup db prod", schedule="15 5 * * *", tz="UTC", grace=1200),
        check("Flapping import", "import", timeout=120, grace=60, job=Job(120, fails_every=2, at=now - 1200)),
        check("Late report", "reports", timeout=3600, grace=86_400),
        check("Forgotten sync", "sync prod", timeout=600, grace=60),
        check("Old migration", "staging"),
        check("Brand new", "staging"),
        check("Long run", "batch", timeout=86_400, grace=7200),
    ]
    by_name = {made.name: made for made in checks}
    by_name["Database dump"].ping(now - hour)
    by_name["Late report"].ping(now - 2 * hour)
    by_name["Forgotten sync"].ping(now - 2 * hour)
    by_name["Old migration"].pause(now - hour)
    by_name["Long run"].ping(now - 2 * hour)
    by_name["Long run"].ping(now - hour / 2, "start")
    return checks


def many_checks(number: int, now: float) -> list[SimulatedCheck]:
    """Return that many checks, a third of them by cron, one in twenty down and one in fifty paused."""
    checks = []
    for n in range(number):
        cron = n % 3 == 0
        check = SimulatedCheck(
            f"Nightly job {n} of the fleet",
            f"nightly-job-{n}",
            f"prod team-{n % 40} region-{n % 7}",
            grace=600,
            timeout=3600,
            schedule="*/5 * * * *" if cron else "",
            uuid=UUID(int=(0x5EED << 112) | (n << 64) | (4 << 76) | (8 << 60) | n),
        )
        check.n_pings, check.last_ping, check.state = n % 1000 + 1, now - now % 300 - n % 250, "up"
        check.last_duration = n % 60
        if n % 20 == 0:
            check.state = "down"
        elif n % 50 == 1:
            check.state = "paused"
        checks.append(check)
    return checks


HOSTILE_TEXTS = (
    "null \x00 byte",
    "line\nbreak\r\ttab \x1b[31m",
    'quote " back\\slash {brace} ,comma=',
    "lone \ud800 surrogate \udfff",
    "separators \u2028\u2029 \x85 \u200f",
    "日本語 été 🚀",
    "x" * 500,
    "</script><b>&amp;",
    "",
)
"""Names and tags no monitor may stumble over."""


def hostile_checks() -> list[SimulatedCheck]:
    """Return checks whose name, tags and schedule are hostile."""
    return [
        SimulatedCheck(
            text, slug=text[:100], tags=f"{text}  {text}", schedule=text, tz=text, uuid=UUID(int=(n + 1) << 64)
        )
        for n, text in enumerate(HOSTILE_TEXTS)
    ]


# --- the server -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class HealthchecksFaults:
    """What is broken; every field may change while the server runs, the defaults are a healthy one.

    database: unopenable fails everywhere; moved, garbage and locked leave status/ at 200. locked answers after
    `lock_seconds`, and the alert loop dies of it.
    sendalerts: dead writes no check down, so that a check that is down keeps its next ping.
    broken_row: one row with an unknown time zone, of which the whole list dies.
    harakiri: the list takes too long, and uWSGI kills the worker: no status line. list_seconds: how long it takes.
    proxy: what stands before the server, and what it answers instead.
    silent: requests get no answer.
    gzip: whether the server compresses (the Docker image does).
    """

    database: Literal["up", "unopenable", "moved", "garbage", "locked"] = "up"
    lock_seconds: float = 7.5
    sendalerts: Literal["alive", "dead"] = "alive"
    broken_row: bool = False
    harakiri: bool = False
    list_seconds: float = 0.0
    proxy: Literal["none", "login_page", "forbidden", "redirect", "rate_limit"] = "none"
    silent: bool = False
    gzip: bool = True


def _page(title: str, text: str = "", end: str = "\n") -> bytes:
    head = f'\n<!doctype html>\n<html lang="en">\n<head>\n  <title>{title}</title>\n</head>\n'
    return f"{head}<body>\n  <h1>{title}</h1><p>{text}</p>\n</body>\n</html>\n{end}".encode()


HTML = "text/html; charset=utf-8"
JSON = "application/json"
_NGINX = (("Server", "nginx/1.22.1"), ("Content-Type", "text/html"))
PROXY_ANSWERS: Mapping[str, Answer] = {
    "login_page": Answer(200, _NGINX, b"<html>\r\n<head><title>Sign in</title></head>\r\n<body></body>\r\n</html>\r\n"),
    "forbidden": Answer(403, _NGINX),
    "redirect": Answer(302, (*_NGINX, ("Location", "https://login.example.com/?next=/"))),
    "rate_limit": Answer(429, (*_NGINX, ("Retry-After", "10"))),
}
_SECURE = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
)
UUID_PATH = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
KEY_PATH = re.compile(r"[0-9a-f]{40}")
ROUTES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("status", re.compile(r"/api/v3/status/")),
    ("checks", re.compile(r"/api/v3/checks/")),
    ("channels", re.compile(r"/api/v3/channels/")),
    ("flips", re.compile(rf"/api/v3/checks/({UUID_PATH.pattern}|{KEY_PATH.pattern})/flips/")),
    ("check", re.compile(rf"/api/v3/checks/({UUID_PATH.pattern}|{KEY_PATH.pattern})")),
)
ALLOWED = "GET, OPTIONS"
CHANNELS = (
    {"id": "00000000-0000-4000-8000-0000000000c1", "name": "Work Email", "kind": "email"},
    {"id": "00000000-0000-4000-8000-0000000000c2", "name": "", "kind": "email"},
    {"id": "00000000-0000-4000-8000-0000000000c3", "name": "On call", "kind": "webhook"},
)


class Healthchecks(Service):
    """A server with one project.

    `checks`, `channels`, `other_project` and `faults` may change while it runs; `extra_entries` are put at the end of
    the list as they are. `hosts` are the names it may be called by, next to its own address. `clock` gives Unix
    seconds, and all that happens between two requests happens at the second one.
    """

    def __init__(
        self,
        checks: Iterable[SimulatedCheck] | None = None,
        *,
        prefix: str = "",
        release: Release = "v4.4",
        hosts: Iterable[str] = ("localhost",),
        read_only_key: str = READ_ONLY_KEY,
        read_write_key: str = READ_WRITE_KEY,
        clock: Callable[[], float] = time.time,
        ssl: SSLContext | None = None,
    ) -> None:
        super().__init__(self._handle, ssl, prefix)
        self.checks = example_checks(clock()) if checks is None else list(checks)
        self.channels: list[Any] = list(CHANNELS)
        self.extra_entries: list[Any] = []
        self.other_project = [SimulatedCheck("Not yours", "not-yours")]
        self.release = release
        self.hosts = frozenset(hosts)
        self.read_only_key = read_only_key
        self.read_write_key = read_write_key
        self.clock = clock
        self.faults = HealthchecksFaults()

    def advance(self) -> float:
        """Let happen what was due up to now, and return the time."""
        now = self.clock()
        for check in self.checks:
            check.advance(now, alerting=self.faults.sendalerts == "alive")
        return now

    # The way of a request: proxy, host, route, method, key, database.

    def _handle(self, request: Request) -> Reply | Awaitable[Reply]:
        if self.faults.proxy != "none":
            return PROXY_ANSWERS[self.faults.proxy]
        if self.faults.silent:
            return Hang()
        if re.sub(r":\d+$", "", request.headers.get("host", "")) not in {*self.hosts, self.server.host}:
            headers = (("Server", "gunicorn"), ("Content-Type", HTML), *_SECURE)
            return Answer(400, headers, _page("Bad Request (400)", end="\n"))
        path = request.path.removeprefix(self.prefix) if request.path.startswith(self.prefix) else ""
        for name, route in ROUTES:
            if match := route.fullmatch(path):
                return self._status(request) if name == "status" else self._call(request, name, *match.groups())
        if any(route.fullmatch(f"{path}/") for name, route in ROUTES if name != "check"):
            return self._redirect(request)
        return self._not_found(request)

    def _status(self, request: Request) -> Reply:
        """Answer without a key. Its test of the database fails only where that cannot be opened at all."""
        if request.method not in ("GET", "HEAD"):
            return self._answer(request, 403, HTML, _page("Forbidden", "CSRF verification failed. Request aborted."))
        if self.faults.database == "unopenable":
            return self._server_error(request)
        return self._answer(request, 200, HTML, b"OK")

    def _call(self, request: Request, name: str, identifier: str = "") -> Reply | Awaitable[Reply]:
        """Answer a call that needs a key; one of the wrong length is refused before the database is asked."""
        methods = "GET, OPTIONS, POST" if name == "checks" else ALLOWED
        if name == "check" and UUID_PATH.fullmatch(identifier):
            methods = "GET, DELETE, POST, OPTIONS"
        if request.method != "GET":
            return self._answer(request, 204 if request.method == "OPTIONS" else 405, HTML, b"", methods)
        key = request.headers.get("x-api-key", "")
        if len(key) != KEY_LENGTH:
            return self._json(request, methods, {"error": "missing api key"}, 401)
        if self.faults.database != "up":
            return self._wait_for_the_lock(request) if self.faults.database == "locked" else self._server_error(request)
        write = key == self.read_write_key
        if not (write or (key == self.read_only_key and name != "channels")):
            return self._json(request, methods, {"error": "wrong api key"}, 401)
        if name == "checks":
            return self._list(request, methods, write=write)
        one = name != "channels"
        return self._one(request, methods, name, identifier, write=write) if one else self._channels(request, methods)

    async def _wait_for_the_lock(self, request: Request) -> Reply:
        await asyncio.sleep(self.faults.lock_seconds)
        self.faults.sendalerts = "dead"
        return self._server_error(request)

    # The calls.

    def _list(self, request: Request, methods: str, *, write: bool) -> Reply | Awaitable[Reply]:
        if self.faults.harakiri:
            return Close()
        now = self.advance()
        if self.faults.broken_row:
            return self._server_error(request)
        query = parse_qs(request.target.partition("?")[2], keep_blank_values=True)
        tags, slug = set(query.get("tag", ())), query.get("slug", [""])[-1]
        found = [
            check
            for check in self.checks
            if (not slug or check.slug == slug)
            and tags <= {tag.strip() for tag in check.tags.split(" ") if tag.strip()}
        ]
        entries: list[Any] = [self._entry(check, now, write=write) for check in found]
        answer = self._json(request, methods, {"checks": entries + self.extra_entries})
        return self._later(answer) if self.faults.list_seconds else answer

    def _channels(self, request: Request, methods: str) -> Answer:
        return self._json(request, methods, {"channels": self.channels})

    async def _later(self, answer: Answer) -> Reply:
        await asyncio.sleep(self.faults.list_seconds)
        return answer

    def _one(self, request: Request, methods: str, name: str, identifier: str, *, write: bool) -> Reply:
        """Answer for one check: that of another project is 403 by uuid, and by unique key as good as none."""
        now = self.advance()
        by_key = KEY_PATH.fullmatch(identifier) is not None
        for check in self.checks:
            if identifier in (check.unique_key, str(check.uuid)):
                if name == "check":
                    return self._json(request, methods, self._entry(check, now, write=write))
                return self._flips(request, methods, check, now)
        if by_key:
            return self._answer(request, 404, HTML, b"", methods)
        if identifier in {str(check.uuid) for check in self.other_project}:
            return self._answer(request, 403, HTML, b"", methods)
        return self._not_found(request)

    def _flips(self, request: Request, methods: str, check: SimulatedCheck, now: float) -> Reply:
        query = {name: request.query[name] for name in ("seconds", "start", "end") if name in request.query}
        seconds = query.pop("seconds", "") or "0"
        if not seconds.isdigit() or int(seconds) > LONGEST_WINDOW or not all(map(str.isdigit, query.values())):
            return self._answer(request, 400, HTML, b"", methods)
        begin = max(int(query.get("start", 0)), now - int(seconds) if int(seconds) else 0)
        end = int(query["end"]) if "end" in query else float("inf")
        flips = [{"timestamp": _iso(at), "up": up} for at, up in reversed(check.flips) if begin <= at and int(at) < end]
        return self._json(request, methods, flips if self.release == "document" else {"flips": flips})

    def _entry(self, check: SimulatedCheck, now: float, *, write: bool) -> dict[str, Any]:
        """Return a check as the API gives it; which fields there are is the release's and the key's business."""
        root, newest, documented = self.url, self.release == "v4.4", self.release == "document"
        entry: dict[str, Any] = {
            "name": check.name,
            "slug": check.slug,
            "tags": check.tags,
            "desc": check.desc,
            "grace": check.grace,
            "n_pings": check.n_pings,
            "status": check.status(now),
            "started": check.last_start is not None,
            "last_ping": _iso(check.last_ping),
            "next_ping": _iso(check.next_ping()),
            "manual_resume": False,
            "methods": "",
        }
        entry |= {} if documented else {"subject": "", "subject_fail": ""}
        entry |= {"start_kw": "", "success_kw": "", "failure_kw": "", "filter_subject": False, "filter_body": False}
        if newest:
            badge = uuid5(check.uuid, "badge")
            entry |= {"filter_http_body": False, "filter_default_fail": False, "badge_url": f"{root}/b/2/{badge}.svg"}
        if check.last_duration is not None and not documented:
            entry["last_duration"] = int(check.last_duration)
        if write:
            update = f"{root}/api/v3/checks/{check.uuid}"
            entry |= {"uuid": str(check.uuid)} if newest else {}
            entry |= {"ping_url": f"{root}/ping/{check.uuid}", "update_url": update, "pause_url": f"{update}/pause"}
            entry |= {"resume_url": f"{update}/resume", "channels": ",".join(one["id"] for one in CHANNELS[:2])}
        else:
            entry["unique_key"] = check.unique_key
        return entry | ({"schedule": check.schedule, "tz": check.tz} if check.schedule else {"timeout": check.timeout})

    # Answers.

    def _json(self, request: Request, methods: str, document: Any, status: int = 200) -> Answer:
        return self._answer(request, status, JSON, json.dumps(document).encode(), methods)

    def _redirect(self, request: Request) -> Answer:
        location = ("Location", request.target.replace(request.path, f"{request.path}/", 1))
        headers = (("Server", "gunicorn"), ("Content-Type", HTML), location, ("Vary", "Cookie"), *_SECURE)
        return Answer(301, headers)

    def _not_found(self, request: Request) -> Answer:
        text = "The requested resource was not found on this server."
        return self._answer(request, 404, HTML, _page("Not Found", text, end=""))

    def _server_error(self, request: Request) -> Answer:
        return self._answer(request, 500, HTML, _page("Server Error (500)", end=""))

    def _answer(self, request: Request, status: int, kind: str, body: bytes, methods: str = "") -> Answer:
        """Return an answer with the server's headers; `methods` those of an API call, which has CORS."""
        worth_it = len(body) >= WORTH_COMPRESSING
        headers = [("Server", "gunicorn"), ("Content-Type", kind)]
        if methods:
            headers += [("Access-Control-Allow-Origin", "*"), ("Access-Control-Allow-Headers", "X-Api-Key")]
            headers += [("Access-Control-Allow-Methods", methods), ("Access-Control-Max-Age", "600")]
        headers += [
            ("X-Frame-Options", "DENY"),
            ("Vary", "Accept-Encoding, Cookie" if worth_it else "Cookie"),
            *_SECURE,
        ]
        if worth_it and self.faults.gzip and "gzip" in request.headers.get("accept-encoding", ""):
            body = gzip.compress(body, 6, mtime=0)
            headers.append(("Content-Encoding", "gzip"))
        return Answer(status, tuple(headers), body)


def _iso(moment: float | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(int(moment), UTC).isoformat()
