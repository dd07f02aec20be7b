"""System health APIs (Momentry Core): GET /health, /health/detailed, /health/consistency, /api/v1/stats/sftpgo.

Source: the API's health-check page, its authentication page and older API references. Nothing of it could be measured,
since the product's source is not public: every set (components, processors, integrations, toggles, anomalies) is open,
every section and field optional, a null is an absent value, and what has the wrong type is skipped and counted.

/health is public, the others take a credential. A consistency check scans the server's database, and goes on scanning
when the exporter no longer waits: it has an interval, also after a failure. See docs/system_health.md.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    InstanceOf,
    SkipValidation,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

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
from collectors.failures import Failure, Reason
from collectors.http import Http, Reply
from collectors.replies import REFUSALS, ReplyModel, check_status, read_document
from collectors.settings import CheckList, Duration, SecretFile, SecretText, TargetSettings, kept_free, one_of

CheckName = Literal["health", "detailed", "consistency", "sftpgo"]
CHECKS: tuple[CheckName, ...] = get_args(CheckName)

CREDENTIALS = ("api_key", "api_key_file", "bearer_token", "bearer_token_file")
CONSISTENCY_RETRY = 60.0
"""Seconds before a consistency check that has failed is asked again: the scan may go on in the server."""
MEGABYTE = 2**20
"""Bytes of a "mb" of the API: its example, 32768, is 32 times 1024."""
OK, DEGRADED, ERROR, UNKNOWN = STATUSES = ("ok", "degraded", "error", "unknown")


# --- settings -------------------------------------------------------------------------------------------------------


class Settings(TargetSettings):
    """A server with the system health API, and at most one credential for it."""

    collector: Literal["system_health"]
    api_key: SecretText | None = None
    api_key_file: SecretFile | None = None
    bearer_token: SecretText | None = None
    bearer_token_file: SecretFile | None = None
    checks: CheckList[CheckName] | None = None
    consistency_interval: Duration = 300.0

    @classmethod
    def rules(cls, written: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Allow one credential, and keep its header free."""
        yield from super().rules(written)
        yield from one_of(written, *CREDENTIALS, required=False)
        for header, keys in (("X-API-Key", CREDENTIALS[:2]), ("Authorization", CREDENTIALS[2:])):
            given = next((key for key in keys if written.get(key) is not None), None)
            if given is None:
                continue
            if header == "Authorization" and written.get("basic_auth") is not None:
                yield "basic_auth", f"basic_auth cannot be used with {given}: both are sent in the header Authorization"
            yield from kept_free(written, header, f"{given} is sent in it")

    def check_names(self) -> tuple[str, ...]:
        """Return the checks of this target: those listed, or what its credential allows."""
        default: tuple[CheckName, ...] = ("health", "detailed", "consistency") if self.credential() else ("health",)
        return tuple(name for name in CHECKS if name in (self.checks or default))

    def credential(self) -> dict[str, str]:
        """Return the header with the credential, as the secret file has it now; empty without one."""
        if (key := self.api_key or self.api_key_file) is not None:
            return {"X-API-Key": key.get()}
        if (token := self.bearer_token or self.bearer_token_file) is not None:
            return {"Authorization": f"Bearer {token.get()}"}
        return {}


# --- replies --------------------------------------------------------------------------------------------------------

T = TypeVar("T")
P = ParamSpec("P")


@dataclass(slots=True)
class Skipped:
    """How many fields of one reply could not be read."""

    fields: int = 0


def _or_skip(value: object, read: ValidatorFunctionWrapHandler, info: ValidationInfo) -> object:
    try:
        return read(value)
    except ValidationError:
        assert isinstance(info.context, Skipped), "every reply is read with one"
        info.context.fields += 1
        return None


def _moment(value: object) -> float:
    """Return Unix seconds of an RFC 3339 time, or of a date: its midnight. Without an offset it is taken for UTC."""
    if not isinstance(value, str):
        raise ValueError("not a time")  # noqa: TRY004
    moment = datetime.fromisoformat(value.upper())
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _length(value: object) -> int:
    if not isinstance(value, list):
        raise ValueError("not a list")  # noqa: TRY004
    return len(value)


Lenient = Annotated[T | None, WrapValidator(_or_skip)]
"""A field that may be null; one of the wrong type is None, and counted."""
Text = InstanceOf[str]
"""A text, also one that is no Unicode."""
Name = SkipValidation[str]
"""The key of a JSON object."""
Amount = Annotated[float, Field(ge=0, le=1e18)]
"""A number that can be: neither negative nor beyond any measure."""
Moment = Annotated[float, BeforeValidator(_moment)]
"""Written as a date or time, read as Unix seconds."""
Length = Annotated[int, BeforeValidator(_length)]
"""Written as a list, read as its length."""
Milliseconds = Annotated[Amount, AfterValidator(lambda number: number / 1000)]
"""Written in milliseconds, read in seconds."""
Percent = Annotated[Amount, AfterValidator(lambda number: number / 100)]
"""Written as 0 to 100, read as 0 to 1."""
Megabytes = Annotated[Amount, AfterValidator(lambda number: number * MEGABYTE)]
"""Written in megabytes, read in bytes."""


class Basics(ReplyModel):
    """What /health tells; /health/detailed repeats status and version, older ones uptime_ms too."""

    status: Lenient[Text] = None
    version: Lenient[Text] = None
    build_git_hash: Lenient[Text] = None
    build_timestamp: Lenient[Moment] = None
    uptime: Annotated[Lenient[Milliseconds], Field(alias="uptime_ms")] = None


class Component(ReplyModel):
    """One of `services`."""

    status: Lenient[Text] = None
    latency: Annotated[Lenient[Milliseconds], Field(alias="latency_ms")] = None


class Resources(ReplyModel):
    """`resources`; the names are those of the API, the units those of Prometheus."""

    cpu_used_percent: Lenient[Percent] = None
    memory_used_percent: Lenient[Percent] = None
    memory_available_mb: Lenient[Megabytes] = None


class ScriptsIntegrity(ReplyModel):
    """`pipeline.scripts_integrity`: SHA-256 checksums compared."""

    matched: Lenient[Amount] = None
    total: Lenient[Amount] = None
    ok: Lenient[bool] = None


class Pipeline(ReplyModel):
    """`pipeline`."""

    scripts_ready: Lenient[bool] = None
    scripts_count: Lenient[Amount] = None
    processors: Lenient[dict[Name, Lenient[bool]]] = None
    models_ready: Lenient[bool] = None
    models_count: Lenient[Amount] = None
    scripts_integrity: Lenient[ScriptsIntegrity] = None
    ffmpeg: Lenient[bool] = None


class Migrations(ReplyModel):
    """`schema`: migrations of the database."""

    table_exists: Lenient[bool] = None
    applied: Lenient[Length] = None
    required: Lenient[Length] = None
    ok: Lenient[bool] = None


class Identities(ReplyModel):
    """`identities`: identity files, their index, and the records in the database."""

    directory_exists: Lenient[bool] = None
    files_count: Lenient[Amount] = None
    index_ok: Lenient[bool] = None
    db_count: Lenient[Amount] = None
    synced: Lenient[bool] = None


class Integration(ReplyModel):
    """One of `integrations`; api_reachable is null while it was not tried."""

    api_key_configured: Lenient[bool] = None
    enabled: Lenient[bool] = None
    api_reachable: Lenient[bool] = None


class Detailed(Basics):
    """GET /health/detailed. The keys of `config` are not documented."""

    services: Lenient[dict[Name, Lenient[Component]]] = None
    resources: Lenient[Resources] = None
    pipeline: Lenient[Pipeline] = None
    migrations: Annotated[Lenient[Migrations], Field(alias="schema")] = None
    identities: Lenient[Identities] = None
    integrations: Lenient[dict[Name, Lenient[Integration]]] = None
    config: Lenient[dict[Name, Any]] = None


class Anomaly(ReplyModel):
    """One of `checks`. The files in it are never read."""

    check: Text
    severity: Lenient[Text] = None
    count: Amount


class Consistency(ReplyModel):
    """GET /health/consistency."""

    status: Lenient[Text] = None
    checked_at: Lenient[Moment] = None
    checks: Lenient[list[Lenient[Anomaly]]] = None


BASIC_KEYS = frozenset(("status", "version", "build_git_hash", "build_timestamp", "uptime_ms"))
SECTIONS = frozenset(("services", "resources", "pipeline", "schema", "identities", "integrations", "config"))
SCAN_KEYS = frozenset(("checks", "checked_at"))

IsOurs = Callable[[Any], bool]


def _is_health(document: Any) -> bool:
    """Return whether this is /health's: a status that is known, or at least two of its keys."""
    if not isinstance(document, dict):
        return False
    return _word(document.get("status")) in STATUSES[:3] or len(BASIC_KEYS & document.keys()) > 1


def _is_detailed(document: Any) -> bool:
    """Return whether a section is there: a server that answers every path as /health is not this API."""
    return isinstance(document, dict) and not SECTIONS.isdisjoint(document)


def _is_consistency(document: Any) -> bool:
    return isinstance(document, dict) and not SCAN_KEYS.isdisjoint(document)


def _is_report_of_trouble(document: Any, is_ours: IsOurs) -> bool:
    """Return whether the document of a 5xx is a health report, and no error that happens to have a status."""
    keys = BASIC_KEYS | SECTIONS | SCAN_KEYS
    return is_ours(document) and _word(document.get("status")) in STATUSES[:3] and len(keys & document.keys()) > 1


def _is_page(reply: Reply) -> bool:
    return reply.body[:1024].removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<")


def _word(status: object) -> str:
    """Return the status as one of the four words."""
    word = status.lower() if isinstance(status, str) else UNKNOWN
    return word if word in STATUSES else UNKNOWN


# --- metrics --------------------------------------------------------------------------------------------------------

STATUS = gauge(
    "system_health_status",
    "1 for what the server says of itself, 0 for the others (/health/detailed if it answered, else /health: status)",
    "status",
)
INFO = gauge(
    "system_health_info",
    "What is running (/health, /health/detailed: version, build_git_hash)",
    "version",
    "build_git_hash",
)
BUILT = gauge(
    "system_health_build_timestamp_seconds",
    "When the server was built, Unix time; midnight UTC if only the day is given (/health: build_timestamp)",
)
STARTED = gauge(
    "system_health_start_time_seconds",
    "When the server started, Unix time, held still within 2 s (/health, older /health/detailed: uptime_ms)",
)
COMPONENT_UP = gauge(
    "system_health_component_up",
    "1 if the component is ok or degraded, 0 if in error; absent for a word that is not known (/health/detailed:"
    " services.*.status)",
    "component",
    naming="component",
)
COMPONENT_STATUS = gauge(
    "system_health_component_status",
    "1 for the status of the component, 0 for the others (/health/detailed: services.*.status)",
    "component",
    "status",
    naming="component",
)
COMPONENT_LATENCY = gauge(
    "system_health_component_latency_seconds",
    "How long the component took to answer the server (/health/detailed: services.*.latency_ms)",
    "component",
    naming="component",
)
PROCESSOR_READY = gauge(
    "system_health_pipeline_processor_ready",
    "1 if the processor, named in lower case, is available (/health/detailed: pipeline.processors)",
    "processor",
    naming="processor",
)
INTEGRATION_ENABLED = gauge(
    "system_health_integration_enabled",
    "1 if the integration is switched on (/health/detailed: integrations.*.enabled)",
    "integration",
    naming="integration",
)
INTEGRATION_KEY = gauge(
    "system_health_integration_api_key_configured",
    "1 if the integration has an API key (/health/detailed: integrations.*.api_key_configured)",
    "integration",
    naming="integration",
)
INTEGRATION_REACHABLE = gauge(
    "system_health_integration_api_reachable",
    "1 if the server reaches the API of the integration; absent if it did not try (/health/detailed:"
    " integrations.*.api_reachable)",
    "integration",
    naming="integration",
)
CONFIG_ENABLED = gauge(
    "system_health_config_enabled",
    "1 if the toggle is on; one inside an object has both names with a dot between (/health/detailed: config)",
    "toggle",
    naming="toggle",
)
CONSISTENCY_STATUS = gauge(
    "system_health_consistency_status",
    "1 for the outcome of the last scan, 0 for the others (/health/consistency: status)",
    "status",
)
ANOMALIES = gauge(
    "system_health_consistency_anomalies",
    "Anomalies the last scan found; the level is unknown if the reply gives none (/health/consistency: checks.check,"
    " severity, count)",
    "anomaly",
    "level",
    naming="anomaly",
)
CHECKED = gauge(
    "system_health_consistency_checked_timestamp_seconds",
    "When the server says it made the last scan, Unix time (/health/consistency: checked_at)",
)
FIELDS_SKIPPED = gauge(
    "system_health_fields_skipped", "Fields and entries of the replies that could not be read and were left out"
)


SINGLE = {
    path: gauge(f"system_health_{name}", f"{text} (/health/detailed: {path})")
    for path, name, text in (
        ("resources.cpu_used_percent", "cpu_used_ratio", "Used share of the CPU, 0 to 1"),
        ("resources.memory_used_percent", "memory_used_ratio", "Used share of the memory, 0 to 1"),
        (
            "resources.memory_available_mb",
            "memory_available_bytes",
            "Memory that is available, a megabyte taken for 1,048,576 bytes",
        ),
        ("pipeline.scripts_ready", "pipeline_scripts_ready", "1 if the directory of the scripts is accessible"),
        ("pipeline.scripts_count", "pipeline_scripts", "Processor scripts there are"),
        ("pipeline.models_ready", "pipeline_models_ready", "1 if the directory of the models is accessible"),
        ("pipeline.models_count", "pipeline_models", "Models there are"),
        ("pipeline.scripts_integrity.total", "pipeline_scripts_checked", "Scripts whose checksum was compared"),
        ("pipeline.scripts_integrity.matched", "pipeline_scripts_intact", "Scripts whose checksum matched"),
        (
            "pipeline.scripts_integrity.ok",
            "pipeline_scripts_integrity_ok",
            "1 if the server finds the checksums in order",
        ),
        ("pipeline.ffmpeg", "pipeline_ffmpeg_ready", "1 if ffmpeg is available"),
        ("schema.ok", "schema_ok", "1 if all required migrations are applied"),
        ("schema.table_exists", "schema_table_exists", "1 if the table of the migrations exists"),
        ("schema.applied", "schema_migrations_applied", "Migrations listed as applied"),
        (
            "schema.required",
            "schema_migrations_required",
            "Migrations listed as required; none on a system that is well",
        ),
        (
            "identities.directory_exists",
            "identities_directory_exists",
            "1 if the directory of the identity files exists",
        ),
        ("identities.files_count", "identities_files", "Identity files there are"),
        ("identities.index_ok", "identities_index_ok", "1 if the index of the identity files is in order"),
        ("identities.db_count", "identities_db_records", "Identities in the database"),
        (
            "identities.synced",
            "identities_synced",
            "1 if there are as many identity files as identities in the database",
        ),
    )
}
"""What a report says once, by the path of its JSON keys."""


# --- what a detailed report says ------------------------------------------------------------------------------------


def _put(report: CheckReport, metric: Metric, number: float | None, **labels: str) -> None:
    """Add a sample, if there is a number."""
    if number is not None:
        report.add(metric, number, **labels)


def _single_values(report: CheckReport, told: Detailed) -> None:
    for path, metric in SINGLE.items():
        value: Any = told
        for key in path.split("."):
            # `schema` is a name pydantic has taken.
            value = getattr(value, "migrations" if key == "schema" else key, None)
        _put(report, metric, value)


def _components(report: CheckReport, told: Detailed) -> None:
    for name, component in (told.services or {}).items():
        if component is None:
            continue
        _put(report, COMPONENT_LATENCY, component.latency, component=name)
        if component.status is not None:
            word = _word(component.status)
            if word != UNKNOWN:
                report.add(COMPONENT_UP, word != ERROR, component=name)
            for status in STATUSES:
                report.add(COMPONENT_STATUS, status == word, component=name, status=status)


def _processors(report: CheckReport, told: Detailed) -> None:
    """Give one sample for names that differ only in their case: the server writes ASRX here and asrx there."""
    ready: dict[str, bool] = {}
    for name, yes in ((told.pipeline or Pipeline()).processors or {}).items():
        if yes is not None:
            ready[name.lower()] = ready.get(name.lower(), True) and yes
    for name, yes in ready.items():
        report.add(PROCESSOR_READY, yes, processor=name)


def _integrations(report: CheckReport, told: Detailed) -> None:
    for name, integration in (told.integrations or {}).items():
        if integration is not None:
            _put(report, INTEGRATION_ENABLED, integration.enabled, integration=name)
            _put(report, INTEGRATION_KEY, integration.api_key_configured, integration=name)
            _put(report, INTEGRATION_REACHABLE, integration.api_reachable, integration=name)


def _toggles(report: CheckReport, told: Detailed) -> None:
    for name, value in (told.config or {}).items():
        inner = {f"{name}.{key}": part for key, part in value.items()} if isinstance(value, dict) else {name: value}
        for toggle, on in inner.items():
            if isinstance(on, bool):
                report.add(CONFIG_ENABLED, on, toggle=toggle)


PARTS = (_single_values, _components, _processors, _integrations, _toggles)


def _write_detailed(report: CheckReport, told: Detailed) -> None:
    """Add what every section says; one with too many names costs no other its samples."""
    failures = []
    for write in PARTS:
        try:
            write(report, told)
        except Failure as failure:
            failures.append(failure)
    if failures:
        raise failures[0]


def _write_consistency(report: CheckReport, told: Consistency) -> None:
    _put(report, CHECKED, told.checked_at)
    if told.status is not None:
        for status in STATUSES:
            report.add(CONSISTENCY_STATUS, status == _word(told.status), status=status)
    counts: dict[tuple[str, str], float] = {}
    for anomaly in told.checks or ():
        if anomaly is not None:
            level = (anomaly.severity or UNKNOWN).lower()
            pair = clean_label(anomaly.check), clean_label(level)
            counts[pair] = counts.get(pair, 0.0) + anomaly.count
            if len(counts) > NAMED_THINGS:
                raise Failure(Reason.TOO_LARGE, f"more than {NAMED_THINGS} kinds of anomalies")
    for (name, level), count in counts.items():
        report.add(ANOMALIES, count, anomaly=name, level=level)


# --- the collector --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Memory:
    """What a target remembers: its start, and how many fields the last reply of each check had that were skipped."""

    started: SteadyTime = field(default_factory=SteadyTime)
    skipped: dict[str, int] = field(default_factory=dict)


M = TypeVar("M", bound=ReplyModel)


class SystemHealth(Collector[Settings, Memory]):
    """One probe of one server."""

    kind = "system_health"
    settings_model = Settings
    metrics = (
        STATUS,
        INFO,
        BUILT,
        STARTED,
        COMPONENT_UP,
        COMPONENT_STATUS,
        COMPONENT_LATENCY,
        *SINGLE.values(),
        PROCESSOR_READY,
        INTEGRATION_ENABLED,
        INTEGRATION_KEY,
        INTEGRATION_REACHABLE,
        CONFIG_ENABLED,
        CONSISTENCY_STATUS,
        ANOMALIES,
        CHECKED,
        FIELDS_SKIPPED,
    )

    def __init__(self, settings: Settings, memory: Memory, http: Http, clock: Clock) -> None:
        """Know nothing yet of this probe."""
        super().__init__(settings, memory, http, clock)
        self._told: dict[str, Basics] = {}
        self._started: float | None = None

    @staticmethod
    def new_memory() -> Memory:
        """Return the memory of a target that was never probed."""
        return Memory()

    def checks(self) -> tuple[Check, ...]:
        """Return the configured checks; the one that makes the server scan its database has intervals."""
        interval = self.settings.consistency_interval
        known = (
            Check("health", self.health),
            Check("detailed", self.detailed),
            Check("consistency", self.consistency, interval=interval, retry=CONSISTENCY_RETRY),
            Check("sftpgo", self.sftpgo),
        )
        names = self.settings.check_names()
        return tuple(check for check in known if check.name in names)

    def conclude(self, reports: Mapping[str, CheckReport]) -> Conclusion:
        """Give what /health and /health/detailed both tell: the status by the detailed one, all else by /health."""
        plain, detailed = self._told.get("health", Basics()), self._told.get("detailed", Basics())
        samples = []
        if (status := _first(detailed.status, plain.status)) is not None:
            samples += [Sample(STATUS, (known,), known == _word(status)) for known in STATUSES]
        version = _first(plain.version, detailed.version)
        commit = _first(plain.build_git_hash, detailed.build_git_hash)
        if version is not None or commit is not None:
            samples.append(Sample(INFO, (clean_label(version or ""), clean_label(commit or "")), 1))
        if (built := _first(plain.build_timestamp, detailed.build_timestamp)) is not None:
            samples.append(Sample(BUILT, (), built))
        if self._started is not None:
            samples.append(Sample(STARTED, (), self._started))
        if skipped := [self.memory.skipped[check] for check in reports if check in self.memory.skipped]:
            samples.append(Sample(FIELDS_SKIPPED, (), sum(skipped)))
        return Conclusion(samples)

    async def health(self, report: CheckReport) -> None:
        """GET /health: public, so the credential is not sent."""
        reply = await self._ask(report, "/health", {})
        self._keep("health", reply, await self._read(report, reply, Basics, _is_health))
        _need_well(reply)

    async def detailed(self, report: CheckReport) -> None:
        """GET /health/detailed: components, resources, pipeline, migrations, identities, integrations, toggles."""
        reply = await self._ask(report, "/health/detailed", self.settings.credential())
        told = await self._read(report, reply, Detailed, _is_detailed)
        self._keep("detailed", reply, told)
        await self._write(report, reply, _write_detailed, told)
        _need_well(reply)

    async def consistency(self, report: CheckReport) -> None:
        """GET /health/consistency: makes the server scan its database."""
        reply = await self._ask(report, "/health/consistency", self.settings.credential())
        told = await self._read(report, reply, Consistency, _is_consistency)
        await self._write(report, reply, _write_consistency, told)
        _need_well(reply)

    async def sftpgo(self, report: CheckReport) -> None:
        """GET /api/v1/stats/sftpgo: its shape is not documented, a 2xx that is no page is a pass."""
        reply = await self._ask(report, "/api/v1/stats/sftpgo", self.settings.credential())
        check_status(reply, range(200, 300), is_ours=not _is_page(reply))

    async def _ask(self, report: CheckReport, path: str, credential: Mapping[str, str]) -> Reply:
        self.memory.skipped.pop(report.check, None)
        return await self.http.ask(report, "GET", self.http.origin(self.settings.address), path, credential)

    async def _read(self, report: CheckReport, reply: Reply, model: type[M], is_ours: IsOurs) -> M:
        """Return the reply as far as it can be read."""
        document = await self._document(reply, is_ours)
        skipped = Skipped()
        told = await self.http.client.digest(reply, partial(model.model_validate, context=skipped), document)
        self.memory.skipped[report.check] = skipped.fields
        return told

    async def _document(self, reply: Reply, is_ours: IsOurs) -> Any:
        if reply.status in REFUSALS and not _is_page(reply):
            # What a refusal of this API looks like is not documented: anything but a page may be one.
            check_status(reply, ())
        if reply.status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return await read_document(self.http.client, reply, is_ours)
        try:
            document = await self.http.client.decode_json(reply.body)
        except ValueError:
            document = None
        if not _is_report_of_trouble(document, is_ours):
            check_status(reply, ())
        return document

    async def _write(self, report: CheckReport, reply: Reply, write: Callable[[CheckReport, M], None], told: M) -> None:
        """Add what a reply tells to the report, through one of its own: the work may be done in a thread."""
        filled = CheckReport(report.check)
        try:
            await self.http.client.digest(reply, write, filled, told)
        except Failure:
            report.absorb(filled)
            raise
        report.absorb(filled)

    def _keep(self, check: str, reply: Reply, told: Basics) -> None:
        """Keep what is told twice; of two uptimes the first to come was the shorter time on its way."""
        self._told[check] = told
        if told.uptime is not None and self._started is None:
            self._started = self.memory.started.hold(reply.middle - told.uptime)


def _need_well(reply: Reply) -> None:
    """Fail the check if the server has answered its health report with a 5xx."""
    if reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise Failure(Reason.UNHEALTHY, f"status {reply.status} with a health report")


def _first(*values: T | None) -> T | None:
    return next((value for value in values if value is not None), None)
