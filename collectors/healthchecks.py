"""Healthchecks, Management API v3: the checks of one project, as the list of its API key has them.

Source: the API document of v3; behaviour measured on v3.4 and on v4.4-dev (gunicorn and uWSGI, SQLite). What each check
proves, what it cannot, and what it costs the server: docs/healthchecks.md.

A key belongs to one project, and the list has no paging: one call gives every check there is. With a read-only key an
entry bears a `unique_key`, with a read-write key the uuid, which is a secret: whoever knows it can ping. The unique key
follows from the uuid, so that both kinds of key give the same series.
"""

import asyncio
import hashlib
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal, get_args
from urllib.parse import quote
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, ByteSize, Field, ValidationError

from collectors.base import Check, CheckReport, Clock, Collector, Conclusion, Metric, clean_label, gauge
from collectors.failures import Failure, Reason
from collectors.http import Http, Reply
from collectors.replies import ReplyModel, check_status, parse, read_document
from collectors.secrets import Secret
from collectors.settings import (
    CheckList,
    Duration,
    Model,
    PositiveDuration,
    SecretFile,
    SecretText,
    Size,
    TargetSettings,
    kept_free,
    one_of,
)

log = logging.getLogger(__name__)

CheckName = Literal["status", "checks", "integrations", "flips"]
CHECKS: tuple[CheckName, ...] = get_args(CheckName)
DEFAULT_CHECKS: tuple[CheckName, ...] = ("status", "checks")

STATUSES = ("new", "up", "grace", "down", "paused", "unknown")
"""The states of a check; `unknown` is any word of the API that is none of the others."""
CAUSES = ("malformed", "duplicate", "no_key")
"""Why an entry of the list is not read."""

API_KEY_LENGTH = 32
LONGEST_WINDOW = 31_536_000
"""Seconds; the server refuses to look further back."""
FLIPS_AT_ONCE = 4


# --- settings -------------------------------------------------------------------------------------------------------


def _api_key(text: str) -> str:
    key = text.strip()
    if not re.fullmatch(rf"[!-~]{{{API_KEY_LENGTH}}}", key):
        raise ValueError(
            f"a Healthchecks API key has {API_KEY_LENGTH} characters, all printable ASCII; this one differs"
        )
    return key


def _key(secret: Secret) -> Secret:
    return secret.require(_api_key)


def _tag(tag: str) -> str:
    if not tag or " " in tag:
        raise ValueError("a tag is not empty and has no space: the server would find no check")
    if re.search("[\ud800-\udfff]", tag):
        raise ValueError("a tag that is no Unicode cannot be sent")
    return tag


def _window(seconds: float) -> float:
    if not seconds.is_integer() or seconds > LONGEST_WINDOW:
        raise ValueError("must be whole seconds, at most 365d: the server takes no other")
    return seconds


class FlipsSettings(Model):
    """How far back flips are counted, how often they are asked for, and of how many checks at most."""

    window: Annotated[PositiveDuration, AfterValidator(_window)] = 86_400.0
    interval: Duration = 300.0
    max_checks: Annotated[int, Field(ge=1)] = 50


class Settings(TargetSettings):
    """A project of a Healthchecks server, as seen with one API key."""

    collector: Literal["healthchecks"]
    api_key: Annotated[SecretText, AfterValidator(_key)] | None = None
    api_key_file: Annotated[SecretFile, AfterValidator(_key)] | None = None
    tags: Annotated[tuple[Annotated[str, AfterValidator(_tag)], ...], Field(strict=False)] = ()
    checks: CheckList[CheckName] = DEFAULT_CHECKS
    flips: FlipsSettings = FlipsSettings()
    max_checks: Annotated[int, Field(ge=1)] = 20_000
    status_samples: Literal["all", "active"] = "all"
    tag_metrics: bool = False
    max_body_size: Size = ByteSize(64 * 2**20)

    @classmethod
    def rules(cls, written: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Ask for the key in one of its two forms, keep its header free, and give flips the list they need."""
        yield from super().rules(written)
        yield from one_of(written, "api_key", "api_key_file")
        checks = written.get("checks")
        if isinstance(checks, list) and "flips" in checks and "checks" not in checks:
            yield "checks", "the check flips needs the check checks: its list says whose flips there are"
        yield from kept_free(written, "X-Api-Key", "use api_key_file or api_key")

    @property
    def key(self) -> str:
        """The API key, as the config or the secret file has it now."""
        secret = self.api_key or self.api_key_file
        assert secret is not None, "the rules of the model ask for it"
        return secret.get().strip()

    def check_names(self) -> tuple[str, ...]:
        """Return the checks of this target: those listed."""
        return tuple(name for name in CHECKS if name in self.checks)


# --- replies --------------------------------------------------------------------------------------------------------


def _unix_time(value: object) -> object:
    """Return the Unix time of an ISO 8601 text, in UTC unless it says otherwise."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError("not a text")  # noqa: TRY004
    moment = datetime.fromisoformat(value)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


UnixTime = Annotated[float | None, BeforeValidator(_unix_time)]
NotNegative = Annotated[float, Field(ge=0)]


class Entry(ReplyModel):
    """A check in the list. Durations in whole seconds, times as ISO 8601 texts.

    Of the identifying fields a read-only key gets unique_key, a read-write key uuid (from v3.5 on) and update_url.
    """

    status: str
    name: str | None = None
    slug: str | None = None
    tags: str | None = None
    started: bool | None = None
    last_ping: UnixTime = None
    next_ping: UnixTime = None
    last_duration: NotNegative | None = None
    n_pings: NotNegative | None = None
    timeout: NotNegative | None = None
    schedule: str | None = None
    tz: str | None = None
    grace: NotNegative | None = None
    unique_key: str | None = None
    uuid: str | None = None
    update_url: str | None = None

    @property
    def key(self) -> str:
        """What the API identifies the check by; empty if the entry does not say."""
        if self.unique_key:
            return self.unique_key
        for text in (self.uuid, (self.update_url or "").rstrip("/").rpartition("/")[2]):
            try:
                digits = UUID(text or "").hex
            except ValueError:
                continue
            return hashlib.sha1(digits[:16].encode(), usedforsecurity=False).hexdigest()
        return ""

    @property
    def state(self) -> str:
        """Its status, one of `STATUSES`."""
        return self.status if self.status in STATUSES else "unknown"

    @property
    def deadline(self) -> float | None:
        """When it goes down unless something comes, Unix time; None if nothing is expected."""
        return None if self.next_ping is None or self.grace is None else self.next_ping + self.grace


class EntryList(ReplyModel):
    """GET checks/: every check of the project, unordered and whole."""

    checks: list[Any]


class Integration(ReplyModel):
    """A channel alerts go out by; nothing says whether it works."""

    kind: str


class IntegrationList(ReplyModel):
    """GET channels/."""

    channels: list[Any]


class Flip(ReplyModel):
    """A change of status; `up` 0 is written by a pause and by a resume too."""

    up: Literal[0, 1]


class FlipList(ReplyModel):
    """GET checks/{unique_key}/flips/; documented as a bare array, measured as an object."""

    flips: list[Flip]


# --- metrics --------------------------------------------------------------------------------------------------------

_LIST = "/api/v3/checks/"

INFO = gauge(
    "healthchecks_check_info",
    f"The check; schedule and tz are empty for kind simple ({_LIST}: name, slug, tags, schedule, tz)",
    "unique_key",
    "name",
    "slug",
    "tags",
    "kind",
    "schedule",
    "tz",
)
STATUS = gauge(
    "healthchecks_check_status",
    f"1 for the status the check has, 0 for the others; with status_samples active the 1 alone ({_LIST}: status)",
    "unique_key",
    "status",
)
STARTED = gauge(
    "healthchecks_check_started",
    f"1 while a run of the job has begun and not ended, whatever the status ({_LIST}: started)",
    "unique_key",
)
LAST_PING = gauge(
    "healthchecks_check_last_ping_timestamp_seconds",
    f"Latest success or failure signal, Unix time; absent if there was none ({_LIST}: last_ping)",
    "unique_key",
)
NEXT_PING = gauge(
    "healthchecks_check_next_ping_timestamp_seconds",
    f"When the next ping is due, Unix time; absent if none is, and while a run is under way ({_LIST}: next_ping)",
    "unique_key",
)
DEADLINE = gauge(
    "healthchecks_check_deadline_timestamp_seconds",
    f"When the check goes down unless a ping comes, Unix time; absent if none is due ({_LIST}: next_ping + grace)",
    "unique_key",
)
LAST_DURATION = gauge(
    "healthchecks_check_last_duration_seconds",
    f"How long the latest run took, in whole seconds; absent if its start was not signalled ({_LIST}: last_duration)",
    "unique_key",
)
PINGS = Metric(
    "healthchecks_check_pings_total",
    "counter",
    f"Pings received of every kind: success, start, failure, log and ignored ones ({_LIST}: n_pings)",
    ("unique_key",),
)
TIMEOUT = gauge(
    "healthchecks_check_timeout_seconds",
    f"Expected time between pings; absent for kind cron ({_LIST}: timeout)",
    "unique_key",
)
GRACE = gauge("healthchecks_check_grace_seconds", f"Grace time ({_LIST}: grace)", "unique_key")
TOTAL = gauge("healthchecks_checks", f"Checks that have the status ({_LIST}: status)", "status")
RUNNING = gauge("healthchecks_checks_running", f"Checks of which a run is under way ({_LIST}: started)")
SKIPPED = gauge(
    "healthchecks_checks_skipped",
    f"Entries of the list that are not read: malformed, with the key of one before, or without a key ({_LIST})",
    "cause",
)
ALERTING_LAG = gauge(
    "healthchecks_alerting_lag_seconds",
    "Longest time since the deadline of a check that is down and not yet handled by the server's alerting (sendalerts);"
    f" 0 if there is none ({_LIST}: status, next_ping, grace)",
)
INTEGRATIONS = gauge(
    "healthchecks_integrations",
    "Integrations of a kind; unknown for those that do not say (/api/v3/channels/: kind)",
    "kind",
    naming="kind",
)
TAG_CHECKS = gauge(
    "healthchecks_tag_checks",
    f"Checks with the tag that have the status ({_LIST}: tags, status)",
    "tag",
    "status",
    naming="tag",
)
FLIPS = gauge(
    "healthchecks_check_flips",
    "Changes of status within the configured window; a pause counts as down, as the server has it"
    " (/api/v3/checks/{unique_key}/flips/: up)",
    "unique_key",
    "direction",
)


# --- reading large replies --------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Listing:
    """What a list of checks comes to: samples of each check, and what the project's are made of."""

    report: CheckReport = field(default_factory=lambda: CheckReport("checks"))
    keys: list[str] = field(default_factory=list)
    """Of the checks read, in their order, as the API has them."""
    statuses: Counter[str] = field(default_factory=Counter)
    tags: dict[str, Counter[str]] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    running: int = 0
    lag: float = 0.0


def read_list(entries: Iterable[Any], settings: Settings, now: float) -> Listing:
    """Read all entries of a list, each for itself; `now` in Unix seconds."""
    listing = Listing()
    seen: set[str] = set()
    for raw in entries:
        try:
            entry = Entry.model_validate(raw)
        except ValidationError:
            listing.skipped["malformed"] += 1
            continue
        key = entry.key
        label = clean_label(key)
        if not key:
            listing.skipped["no_key"] += 1
        elif label in seen:
            listing.skipped["duplicate"] += 1
        else:
            seen.add(label)
            listing.keys.append(key)
            _count(listing, entry, settings, now)
            _publish(listing.report, entry, label, settings)
    return listing


def _count(listing: Listing, entry: Entry, settings: Settings, now: float) -> None:
    state = entry.state
    listing.statuses[state] += 1
    listing.running += entry.started is True
    if state == "down" and entry.deadline is not None:
        listing.lag = max(listing.lag, now - entry.deadline)
    if settings.tag_metrics:
        for tag in dict.fromkeys(clean_label(tag) for tag in (entry.tags or "").split(" ") if tag):
            listing.tags.setdefault(tag, Counter())[state] += 1


def _publish(report: CheckReport, entry: Entry, key: str, settings: Settings) -> None:
    is_cron = entry.schedule is not None
    report.add(
        INFO,
        1,
        unique_key=key,
        name=entry.name or "",
        slug=entry.slug or "",
        tags=entry.tags or "",
        kind="cron" if is_cron else "simple",
        schedule=entry.schedule or "",
        tz=entry.tz or "" if is_cron else "",
    )
    state = entry.state
    for status in STATUSES if settings.status_samples == "all" else (state,):
        report.add(STATUS, status == state, unique_key=key, status=status)
    for metric, number in (
        (STARTED, entry.started),
        (LAST_PING, entry.last_ping),
        (NEXT_PING, None if entry.started else entry.next_ping),
        (DEADLINE, entry.deadline),
        (LAST_DURATION, entry.last_duration),
        (PINGS, entry.n_pings),
        (TIMEOUT, entry.timeout),
        (GRACE, entry.grace),
    ):
        if number is not None:
            report.add(metric, number, unique_key=key)


def count_kinds(channels: Iterable[Any]) -> Counter[str]:
    """Return how many integrations there are of each kind, as a label has it; `unknown` is one that does not say."""
    kinds: Counter[str] = Counter()
    for raw in channels:
        try:
            kind = Integration.model_validate(raw).kind
        except ValidationError:
            kind = ""
        kinds[clean_label(kind) or "unknown"] += 1
    return kinds


def count_flips(document: Any) -> Counter[int]:
    """Return how many flips went up (1) and down (0). Raises Failure(schema)."""
    return Counter(
        flip.up for flip in parse(FlipList, {"flips": document} if isinstance(document, list) else document).flips
    )


# --- the collector --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Memory:
    """What a target remembers: the key the list accepted last, and the one that was said to be read-only."""

    accepted_key: str = field(default="", repr=False)
    told_key: str = field(default="", repr=False)


class Healthchecks(Collector[Settings, Memory]):
    """One probe of one project of a Healthchecks server."""

    kind = "healthchecks"
    settings_model = Settings
    metrics = (
        INFO,
        STATUS,
        STARTED,
        LAST_PING,
        NEXT_PING,
        DEADLINE,
        LAST_DURATION,
        PINGS,
        TIMEOUT,
        GRACE,
        TOTAL,
        RUNNING,
        SKIPPED,
        ALERTING_LAG,
        INTEGRATIONS,
        TAG_CHECKS,
        FLIPS,
    )

    def __init__(self, settings: Settings, memory: Memory, http: Http, clock: Clock) -> None:
        """Take the key as it is now; the keys of the list will be told when it is there."""
        super().__init__(settings, memory, http, clock)
        self._api = http.origin(settings.address)
        self._api_key = settings.key
        self._refused = False
        self._listed: asyncio.Future[list[str] | Failure] = asyncio.get_running_loop().create_future()

    @staticmethod
    def new_memory() -> Memory:
        """Return the memory of a target that was never probed."""
        return Memory()

    def checks(self) -> tuple[Check, ...]:
        """Return the configured checks; flips, which are one call for each check, have an interval."""
        known = (
            Check("status", self.status),
            Check("checks", self.list_checks),
            Check("integrations", self.integrations),
            Check("flips", self.flips, interval=self.settings.flips.interval),
        )
        return tuple(check for check in known if check.name in self.settings.checks)

    def conclude(self, reports: Mapping[str, CheckReport]) -> Conclusion:
        """Leave out integrations where the key is good for the list and not for them: it is a read-only key."""
        return Conclusion(left_out={"integrations"} & set(reports) if self._is_read_only() else set())

    async def status(self, report: CheckReport) -> None:
        """GET status/, without a key: something serves the API. A broken database was seen to pass."""
        reply = await self.http.ask(report, "GET", self._api, "/api/v3/status/")
        body = reply.body.strip()
        check_status(reply, (HTTPStatus.OK,), is_ours=body == b"OK" or (not body and reply.status != HTTPStatus.OK))

    async def list_checks(self, report: CheckReport) -> None:
        """GET checks/: all checks in one answer."""
        try:
            keys = await self._list(report)
        except Failure as failure:
            if failure.reason is Reason.AUTH:
                self.memory.accepted_key = ""
            self._listed.set_result(failure)
            raise
        self._listed.set_result(keys)

    async def integrations(self, report: CheckReport) -> None:
        """GET channels/, which needs a read-write key: what alerts go out by. A disabled one looks like any other."""
        try:
            reply, document = await self._ask(report, "/api/v3/channels/", "channels")
        except Failure as failure:
            self._refused = failure.reason is Reason.AUTH and report.status == HTTPStatus.UNAUTHORIZED
            self._tell_once()
            raise
        kinds = await self.http.client.digest(reply, count_kinds, parse(IntegrationList, document).channels)
        for kind, number in kinds.items():
            report.add(INTEGRATIONS, number, kind=kind)

    async def flips(self, report: CheckReport) -> None:
        """GET checks/{unique_key}/flips/ of every check of this probe's list, a few at a time.

        A check that is gone or whose flips cannot be read costs the others nothing; any other failure ends it.
        """
        keys = await asyncio.shield(self._listed)  # its own timeout must not cancel what checks has to set
        if isinstance(keys, Failure):
            raise Failure(keys.reason, "the list of checks failed, which says whose flips there are")
        if len(keys) > self.settings.flips.max_checks:
            raise Failure(Reason.TOO_LARGE, f"{len(keys)} checks are more than flips.max_checks")
        waiting, failed = iter(keys), list[Failure]()

        async def work() -> None:
            for key in waiting:
                try:
                    await self._flips_of(report, key)
                except Failure as failure:
                    if failure.reason not in (Reason.NOT_FOUND, Reason.SCHEMA):
                        raise
                    failed.append(failure)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(FLIPS_AT_ONCE):
                    group.create_task(work())
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        if failed:
            raise Failure(failed[0].reason, f"of {len(failed)} of {len(keys)} checks: {failed[0].detail}")

    async def _list(self, report: CheckReport) -> list[str]:
        tags = "&".join(f"tag={quote(tag, safe='')}" for tag in self.settings.tags)
        reply, document = await self._ask(report, f"/api/v3/checks/{'?' if tags else ''}{tags}", "checks")
        self.memory.accepted_key = self._api_key
        self._tell_once()
        entries = parse(EntryList, document).checks
        if len(entries) > self.settings.max_checks:
            raise Failure(Reason.TOO_LARGE, f"{len(entries)} checks are more than max_checks")
        listing = await self.http.client.digest(reply, read_list, entries, self.settings, self.clock.wall())
        report.absorb(listing.report)
        for status in STATUSES:
            report.add(TOTAL, listing.statuses[status], status=status)
        report.add(RUNNING, listing.running)
        for cause in CAUSES:
            report.add(SKIPPED, listing.skipped[cause], cause=cause)
        report.add(ALERTING_LAG, listing.lag)
        for tag, statuses in listing.tags.items():
            for status in STATUSES:
                report.add(TAG_CHECKS, statuses[status], tag=tag, status=status)
        return listing.keys

    async def _flips_of(self, report: CheckReport, key: str) -> None:
        # By the unique key, though the uuid is quicker for the server: a URL ends in logs, and the uuid is a secret.
        path = f"/api/v3/checks/{quote(key, safe='', errors='replace')}/flips/"
        reply, document = await self._ask(report, f"{path}?seconds={self.settings.flips.window:.0f}", "flips")
        ups = await self.http.client.digest(reply, count_flips, document)
        for direction, up in (("up", 1), ("down", 0)):
            report.add(FLIPS, ups[up], unique_key=key, direction=direction)

    async def _ask(self, report: CheckReport, path: str, name: str) -> tuple[Reply, Any]:
        """Ask with the key; the document has `name`, or is an error of the API."""

        def is_ours(document: Any) -> bool:
            if isinstance(document, list):
                return name == "flips"
            return isinstance(document, dict) and (name in document or isinstance(document.get("error"), str))

        reply = await self.http.ask(report, "GET", self._api, path, {"X-Api-Key": self._api_key})
        return reply, await read_document(self.http.client, reply, is_ours)

    def _is_read_only(self) -> bool:
        return self._refused and self.memory.accepted_key == self._api_key

    def _tell_once(self) -> None:
        if self._is_read_only() and self.memory.told_key != self._api_key:
            self.memory.told_key = self._api_key
            log.info(
                "the check integrations is left out: the API key is read-only", extra={"target": self.settings.name}
            )
