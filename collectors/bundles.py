"""MCP-bundle hosts (NimbleBrain): GET /v1/health, GET /v1/bundles/health.

Source: the Health API page of NimbleBrain's documentation of April 2026, and a public release of its server, measured.
The two differ. The page documents both calls, the states starting, running, crashed, dead, stopped, and uptimes in
seconds that are 0 while a bundle is down. Every public release answers 404 to the second call and reports the states
healthy, restarting, cooldown, dead; with the call put back, the server's own values are milliseconds that go on growing
while a bundle is down, and null for one that never started. Both are read here. See docs/bundles.md.

A restart count is no counter: it falls to 0 when a bundle recovers and when the host gives up for a while.
collectors/bundle_restarts.py makes one of it.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from collectors.base import (
    NAMED_THINGS,
    Check,
    CheckReport,
    Clock,
    Collector,
    Conclusion,
    Metric,
    Sample,
    SteadyTime,
    clean_label,
    gauge,
)
from collectors.bundle_restarts import UNITS, UP, BundleRestarts, Restarts, Sight, Uptime
from collectors.failures import Failure, Reason
from collectors.http import Http, Reply
from collectors.replies import ReplyModel, parse, read_document
from collectors.settings import TargetSettings

log = logging.getLogger(__name__)

STATES = ("starting", "running", "crashed", "dead", "stopped", "healthy", "restarting", "cooldown", "unknown")
"""Both vocabularies, and what every other word counts as."""
UNKNOWN = "unknown"


# --- settings -------------------------------------------------------------------------------------------------------

BundleNames = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False)]


class Settings(TargetSettings):
    """A bundle host; bundles that must be there, bundles that do not matter, and the unit of its uptimes."""

    collector: Literal["bundles"]
    expect: BundleNames = ()
    ignore: BundleNames = ()
    uptime_unit: Literal["auto", "seconds", "milliseconds"] = "auto"

    @classmethod
    def rules(cls, written: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Let no bundle be both expected and ignored."""
        yield from super().rules(written)
        expect, ignore = written.get("expect"), written.get("ignore")
        if isinstance(expect, list | tuple) and isinstance(ignore, list | tuple):
            for name in expect:
                if isinstance(name, str) and name in ignore:
                    yield "ignore", f"{name} is expected too: give it in one of the lists"

    def check_names(self) -> tuple[str, ...]:
        """Return the checks of every bundle host."""
        return ("health", "bundles")


# --- replies --------------------------------------------------------------------------------------------------------

MOST_UPTIME = 1e12
"""31 years in milliseconds."""
MOST_RESTARTS = 1e9


class HealthReply(ReplyModel):
    """GET /v1/health: version and buildSha as measured, uptime (of the server, in seconds) as documented."""

    version: str | None = None
    buildSha: str | None = None  # noqa: N815
    uptime: Annotated[float, Field(ge=0, le=MOST_UPTIME)] | None = None


class BundleList(ReplyModel):
    """What lists bundles; the entries are read one by one."""

    bundles: list[Any]


class Entry(ReplyModel):
    """One bundle instance. GET /v1/health gives name and state only."""

    name: Annotated[str, Field(min_length=1)]
    state: str | None = None
    uptime: Annotated[float, Field(ge=0, le=MOST_UPTIME)] | None = None
    restartCount: Annotated[float, Field(ge=0, le=MOST_RESTARTS)] | None = None  # noqa: N815

    @property
    def known_state(self) -> str:
        """The state if it is one of `STATES`, else `unknown`."""
        return self.state if self.state in STATES else UNKNOWN


@dataclass(slots=True)
class Listing:
    """The bundles of one reply: the instances of each name, as a label has it, in their order."""

    bundles: dict[str, list[Entry]] = field(default_factory=dict)
    skipped: int = 0
    unknown_words: set[str] = field(default_factory=set)

    def without(self, ignored: Iterable[str]) -> dict[str, list[Entry]]:
        """Return the bundles that are not ignored."""
        names = {clean_label(name) for name in ignored}
        return {name: entries for name, entries in self.bundles.items() if name not in names}


def read_listing(rows: Sequence[Any]) -> Listing:
    """Read the entries of a list; one that cannot be read, or not wholly, is counted and costs the others nothing."""
    listing = Listing()
    for row in rows:
        entry, whole = _read_entry(row)
        listing.skipped += not whole
        if entry is None:
            continue
        listing.bundles.setdefault(clean_label(entry.name), []).append(entry)
        if entry.known_state == UNKNOWN:
            listing.unknown_words.add(clean_label(entry.state or ""))
    return listing


def _read_entry(row: Any) -> tuple[Entry | None, bool]:
    """Return an entry without its fields of a wrong type, and whether there were none of them."""
    try:
        return Entry.model_validate(row), True
    except ValidationError as error:
        wrong = {detail["loc"][0] for detail in error.errors(include_url=False, include_input=False) if detail["loc"]}
    if not isinstance(row, dict) or "name" in wrong:
        return None, False
    return Entry.model_validate({key: value for key, value in row.items() if key not in wrong}), False


# --- metrics --------------------------------------------------------------------------------------------------------

HOST_INFO = gauge("bundle_host_info", "The host's build (/v1/health: version, buildSha)", "version", "build_sha")
HOST_START = gauge(
    "bundle_host_start_time_seconds",
    "When the host started, Unix time (/v1/health: uptime, which no public release gives)",
)
HOST_BUNDLES = gauge(
    "bundle_host_bundles",
    "Bundle instances in that state, those of ignored bundles left out (/v1/bundles/health or /v1/health: state)",
    "state",
)
ENTRIES_SKIPPED = gauge(
    "bundle_host_entries_skipped",
    "Entries of the list that could not be read, or not wholly (/v1/bundles/health or /v1/health)",
)
OFFERED = gauge(
    "bundle_endpoint_offered", "0 if the host answers 404 for that API (bundles: /v1/bundles/health)", "api"
)
BUNDLE_UP = gauge(
    "bundle_up",
    "1 if every instance of the bundle is running or healthy (/v1/bundles/health or /v1/health: state)",
    "bundle",
    naming="bundle",
)
INSTANCES = gauge(
    "bundle_instances",
    "Instances of the bundle in that state (/v1/bundles/health or /v1/health: state)",
    "bundle",
    "state",
    naming="bundle",
)
EXPECTED_MISSING = gauge(
    "bundle_expected_missing", "1 if the bundle is expected and not listed (config: expect)", "bundle"
)
START_TIME = gauge(
    "bundle_start_time_seconds",
    "When the instance of the bundle that started last did so, Unix time; only while it is up, only once the unit is"
    " known (/v1/bundles/health: uptime)",
    "bundle",
    naming="bundle",
)
RESTARTS = Metric(
    "bundle_restarts_total",
    "counter",
    "Restarts of the bundle since the exporter first saw it (/v1/bundles/health: restartCount, uptime)",
    ("bundle",),
    naming="bundle",
)
CONSECUTIVE_RESTARTS = gauge(
    "bundle_consecutive_restarts",
    "Restarts in a row as the host reports them, of the instance that has most: 0 again after recovery and in cooldown"
    " (/v1/bundles/health: restartCount)",
    "bundle",
    naming="bundle",
)
LAST_RESTART = gauge(
    "bundle_last_restart_timestamp_seconds",
    "When the exporter last saw a restart of the bundle, Unix time; absent until then",
    "bundle",
    naming="bundle",
)


# --- the collector --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Memory:
    """What a target remembers: restarts and start times, and the state words it has complained of."""

    restarts: Restarts = field(default_factory=Restarts)
    host_start: SteadyTime = field(default_factory=SteadyTime)
    unknown_words: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Seen:
    """A list that was read: its bundles, the samples of their states, when it was seen."""

    listing: Listing
    states: CheckReport
    wall: float
    at: float
    doubt: float

    def uptime(self, entry: Entry) -> Uptime | None:
        """Return an uptime that tells of a start: documented hosts report 0 for what is down."""
        if entry.uptime is None or (entry.uptime == 0 and entry.known_state not in UP):
            return None
        return Uptime(entry.uptime, self.at, self.doubt)

    def sights(self, names: Iterable[str]) -> dict[str, list[Sight]]:
        """Return what is seen of these bundles."""
        return {
            name: [
                Sight(
                    entry.known_state,
                    self.uptime(entry),
                    None if entry.restartCount is None else int(entry.restartCount),
                )
                for entry in self.listing.bundles[name]
            ]
            for name in names
        }


class Bundles(Collector[Settings, Memory]):
    """One probe of one bundle host."""

    kind = "bundles"
    settings_model = Settings
    metrics = (
        HOST_INFO,
        HOST_START,
        HOST_BUNDLES,
        ENTRIES_SKIPPED,
        OFFERED,
        BUNDLE_UP,
        INSTANCES,
        EXPECTED_MISSING,
        START_TIME,
        RESTARTS,
        CONSECUTIVE_RESTARTS,
        LAST_RESTART,
    )

    def __init__(self, settings: Settings, memory: Memory, http: Http, clock: Clock) -> None:
        """Begin with nothing seen."""
        super().__init__(settings, memory, http, clock)
        self._unfinished = set(settings.check_names())
        self._seen: dict[str, Seen] = {}
        self._host_uptime: Uptime | None = None
        self._details = CheckReport("bundles")

    @staticmethod
    def new_memory() -> Memory:
        """Return the memory of a target that was never probed."""
        return Memory()

    def checks(self) -> tuple[Check, ...]:
        """Return both checks; neither costs the host more than a look at a list."""
        return (Check("health", self.health), Check("bundles", self.bundles))

    def conclude(self, reports: Mapping[str, CheckReport]) -> Conclusion:
        """Take states from the better of the lists; leave out the check of a list that this host does not offer."""
        conclusion = Conclusion()
        for prepared in (self._best(), self._details):
            conclusion.samples += prepared.samples.values() if prepared else ()
        if reports["bundles"].reason is Reason.NOT_FOUND and "health" in self._seen:
            conclusion.left_out = {"bundles"}
            conclusion.samples.append(Sample(OFFERED, ("bundles",), 0))
        return conclusion

    async def health(self, report: CheckReport) -> None:
        """GET /v1/health: the host's build, and names and states of its bundles. It is always 200 and "ok"."""
        try:
            reply, document = await self._ask(report, "/v1/health")
            seen = await self._read(report, reply, document)
            info = parse(HealthReply, document)
            report.add(HOST_INFO, 1, version=info.version or "", build_sha=info.buildSha or "")
            if info.uptime is not None:
                report.add(HOST_START, self.memory.host_start.hold(seen.wall - info.uptime))
                self._host_uptime = Uptime(info.uptime, seen.at, seen.doubt)
            self._hold_to_limit(seen)
        finally:
            self._finish("health")

    async def bundles(self, report: CheckReport) -> None:
        """GET /v1/bundles/health: states, uptimes and restart counts, in a bare array or an object."""
        try:
            reply, document = await self._ask(report, "/v1/bundles/health")
            seen = await self._read(report, reply, document)
            report.add(OFFERED, 1, api="bundles")
            self._hold_to_limit(seen)
        finally:
            self._finish("bundles")

    async def _ask(self, report: CheckReport, path: str) -> tuple[Reply, Any]:
        reply = await self.http.ask(report, "GET", self.http.origin(self.settings.address), path)
        return reply, await read_document(self.http.client, reply, _is_ours)

    async def _read(self, report: CheckReport, reply: Reply, document: Any) -> Seen:
        rows = document if isinstance(document, list) else parse(BundleList, document).bundles
        at = self.clock.monotonic() - reply.took / 2
        listing, states = await self.http.client.digest(reply, prepare, rows, self.settings)
        seen = self._seen[report.check] = Seen(listing, states, reply.middle, at, reply.took / 2)
        return seen

    def _hold_to_limit(self, seen: Seen) -> None:
        if len(seen.listing.without(self.settings.ignore)) > NAMED_THINGS:
            raise Failure(Reason.TOO_LARGE, f"more than {NAMED_THINGS} bundles")

    def _best(self) -> CheckReport | None:
        seen = self._seen.get("bundles") or self._seen.get("health")
        return seen.states if seen else None

    def _finish(self, check: str) -> None:
        """Count restarts once both checks are over: the host's own uptime tells whether it was the host."""
        self._unfinished.discard(check)
        if self._unfinished:
            return
        if seen := self._seen.get("bundles") or self._seen.get("health"):
            self._complain(seen.listing.unknown_words)
        if seen := self._seen.get("bundles"):
            self._count_restarts(seen)

    def _complain(self, words: set[str]) -> None:
        if words and words != self.memory.unknown_words:
            log.warning(
                "bundle states that are not known count as unknown",
                extra={"target": self.settings.name, "states": ", ".join(sorted(words)[:5])},
            )
        self.memory.unknown_words = words

    def _count_restarts(self, seen: Seen) -> None:
        """Feed the look to `Restarts`; ignored bundles, too, tell of the unit and of a restart of the host."""
        restarts = self.memory.restarts
        shown = dict(islice(seen.listing.without(self.settings.ignore).items(), NAMED_THINGS))
        ignored = seen.listing.bundles.keys() & {clean_label(name) for name in self.settings.ignore}
        unit = UNITS.get(self.settings.uptime_unit)
        restarts.observe(seen.sights([*shown, *ignored]), seen.wall, unit=unit, host=self._host_uptime)
        for name, entries in shown.items():
            add_details(self._details, entries, restarts.bundles[name])


def _is_ours(document: Any) -> bool:
    """Return whether a document is a bundle host's: a list of bundles, bare or in an object, or its own error."""
    if isinstance(document, list):
        return not document or any(isinstance(row, dict) and "name" in row for row in document)
    if not isinstance(document, dict):
        return False
    return "bundles" in document or all(isinstance(document.get(key), str) for key in ("error", "message"))


def prepare(rows: Sequence[Any], settings: Settings) -> tuple[Listing, CheckReport]:
    """Return the bundles of a list, and the samples of their states: of the first 1,000 bundles, if there are more."""
    listing, report = read_listing(rows), CheckReport("states")
    shown = listing.without(settings.ignore)
    counts = _by_state(entry for entries in shown.values() for entry in entries)
    for state, count in counts.items():
        report.add(HOST_BUNDLES, count, state=state)
    report.add(ENTRIES_SKIPPED, listing.skipped)
    for name in settings.expect:
        report.add(EXPECTED_MISSING, clean_label(name) not in shown, bundle=name)
    for entries in islice(shown.values(), NAMED_THINGS):
        bundle = entries[0].name
        report.add(BUNDLE_UP, all(entry.known_state in UP for entry in entries), bundle=bundle)
        for state, count in _by_state(entries).items():
            report.add(INSTANCES, count, bundle=bundle, state=state)
    return listing, report


def _by_state(entries: Iterable[Entry]) -> dict[str, int]:
    counts = dict.fromkeys(STATES, 0)
    for entry in entries:
        counts[entry.known_state] += 1
    return counts


def add_details(report: CheckReport, entries: Sequence[Entry], restarts: BundleRestarts) -> None:
    """Add what uptimes and restart counts tell of one bundle."""
    name = entries[0].name
    counts = [entry.restartCount for entry in entries if entry.restartCount is not None]
    if counts:
        report.add(CONSECUTIVE_RESTARTS, max(counts), bundle=name)
    if counts or any(entry.uptime is not None for entry in entries):
        report.add(RESTARTS, restarts.total, bundle=name)
    if restarts.last is not None:
        report.add(LAST_RESTART, restarts.last, bundle=name)
    start = restarts.latest_start
    if start is not None and all(entry.known_state in UP for entry in entries):
        report.add(START_TIME, start, bundle=name)
