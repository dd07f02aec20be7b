"""Writes the Grafana dashboards beside it: `python -m dashboards.generate`.

The first half is the little of Grafana's dashboard format (v1, schemaVersion 41) that is needed, the second half the
dashboards. Every query takes a target's series as the rules do: without instance, pod and exporter, so that replicas
of the exporter do not double anything.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Json = dict[str, Any]

TAG = "health-exporter"
KINDS = ("pryv", "bundles", "system_health", "healthchecks")
ERROR_BUDGET = 0.005
DAY = 86400

# --- queries --------------------------------------------------------------------------------------------------------

ONE = "instance, pod, exporter"
MONITOR_OWN = "auth|internal|not_found|wrong_target|redirect|too_large"
NOT_LIVE = "dns|hfs|access|consistency"


def series(metric: str, *matchers: str, **equal: str) -> str:
    """Return the selector of a metric of the chosen targets."""
    exact = [f'{label}="{value}"' for label, value in equal.items()]
    chosen = ['job=~"$job"', 'target=~"$target"', *matchers, *exact]
    return f"{metric}{{{','.join(chosen)}}}"


def now(metric: str, *matchers: str, drop: str = "", **equal: str) -> str:
    """Return one series for each target and label set, whatever the number of exporters; `drop` names more labels."""
    return f"max without ({ONE}{', ' * bool(drop)}{drop}) ({series(metric, *matchers, **equal)})"


def state(metric: str, *states: str) -> str:
    """Return 1 for the first status, 2 for the second and so on; of two that hold at once the later one shows."""
    parts = [f"{code} * ({now(metric, drop='status', status=name)} == 1)" for code, name in enumerate(states, start=1)]
    return " or ".join(reversed(parts))


def over_time(function: str, metric: str, window: str = "$__rate_interval") -> str:
    """Return a function of each series over a window, one for each target and label set."""
    return f"max without ({ONE}) ({function}({series(metric)}[{window}]))"


def count(expression: str, of: str) -> str:
    """Return how many series there are: 0 if there are none, but nothing if there are none of `of` either."""
    return f"count({expression}) or 0 * count({of})"


# --- Grafana's format -----------------------------------------------------------------------------------------------

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
GREEN, YELLOW, ORANGE, RED, BLUE, GREY = "green", "yellow", "orange", "red", "blue", "text"

Mapping = dict[int, tuple[str, str]]
OK_FAIL: Mapping = {1: ("OK", GREEN), 0: ("FAIL", RED)}
YES_NO: Mapping = {1: ("yes", GREEN), 0: ("no", RED)}
NEUTRAL: Mapping = {1: ("yes", GREY), 0: ("no", GREY)}
SEVERITY: Mapping = {3: ("critical", RED), 2: ("warning", ORANGE), 1: ("configuration", YELLOW)}

Steps = tuple[tuple[float | None, str], ...]
BAD_FROM_ONE: Steps = ((None, GREEN), (1, RED))
WARN_FROM_ONE: Steps = ((None, GREEN), (1, ORANGE))
PLAIN: Steps = ((None, GREY),)
EXPIRY: Steps = ((None, RED), (3 * DAY, ORANGE), (14 * DAY, GREEN))


def field(unit: str, mapping: Mapping | None = None, steps: Steps = PLAIN, **more: Any) -> Json:
    """Return how a value is shown."""
    options = {str(number): {"text": text, "color": color} for number, (text, color) in (mapping or {}).items()}
    return {
        "unit": unit,
        "mappings": [{"type": "value", "options": options}] if options else [],
        "thresholds": {"mode": "absolute", "steps": [{"value": value, "color": color} for value, color in steps]},
    } | more


@dataclass(frozen=True)
class Query:
    """A query and the legend of its series."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Column:
    """A column of a table, or, without a name, a query that only brings labels.

    The queries of one table are merged on the labels they share.
    """

    name: str
    expr: str
    unit: str = "none"
    mapping: Mapping | None = None
    steps: Steps = PLAIN
    gauge: bool = False

    def override(self) -> Json:
        """Return how the column is shown."""
        shown = field(self.unit, self.mapping, self.steps)
        if self.gauge:
            shown |= {"custom.cellOptions": {"type": "gauge", "mode": "basic"}, "min": 0, "max": 1}
        elif self.mapping or self.steps != PLAIN:
            shown["custom.cellOptions"] = {"type": "color-text"}
        properties = [{"id": key, "value": value} for key, value in shown.items()]
        return {"matcher": {"id": "byName", "options": self.name}, "properties": properties}


def panel(kind: str, title: str, description: str, queries: list[Json], defaults: Json, **more: Any) -> Json:
    """Return a panel; `width` and what else is not Grafana's is taken away by the layout."""
    for letter, query in zip(LETTERS, queries, strict=False):
        query |= {"refId": letter, "datasource": SOURCE, "editorMode": "code"}
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "targets": queries,
        "fieldConfig": {"defaults": defaults, "overrides": []},
    } | more


def instant(expr: str, legend: str = "__auto", form: str = "time_series") -> Json:
    """Return a query for this moment."""
    return {"expr": expr, "legendFormat": legend, "format": form, "instant": True, "range": False}


def ranged(query: Query, form: str = "time_series") -> Json:
    """Return a query for the time shown."""
    return {"expr": query.expr, "legendFormat": query.legend, "format": form, "instant": False, "range": True}


def link_to_target(field_of_target: str, kind: str) -> list[Json]:
    """Return the data link to the details of one target."""
    url = f"/d/{TAG}-{kind}?var-datasource=${{datasource}}&var-target={field_of_target}&${{__url_time_range}}"
    return [{"title": "Details of the target", "url": url, "targetBlank": False}]


def stat(
    title: str, description: str, expr: str, *, unit: str = "short", steps: Steps = BAD_FROM_ONE, **more: Any
) -> Json:
    """Return one number."""
    options = {
        "colorMode": "background",
        "graphMode": "none",
        "justifyMode": "auto",
        "textMode": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    }
    legend = more.pop("legend", title)
    mapping = more.pop("mapping", None)
    defaults = field(unit, mapping, steps, noValue="no data")
    return panel("stat", title, description, [instant(expr, legend)], defaults, options=options, **more)


def table(
    title: str,
    description: str,
    labels: tuple[str, ...],
    *columns: Column,
    worst: str = "",
    descending: bool = False,
    no_value: str = "none",
    hide: tuple[str, ...] = (),
    kind: str = "",
    **more: Any,
) -> Json:
    """Return a table of this moment: the named labels, then the columns; sorted by the column `worst`."""
    values = ["Value"] if len(columns) == 1 else [f"Value #{letter}" for letter in LETTERS[: len(columns)]]
    named = dict(zip(values, columns, strict=True))
    hidden = {"Time", "job", "collector", "url", *hide} - set(labels)
    hidden |= {value for value, column in named.items() if not column.name}
    organize = {
        "excludeByName": dict.fromkeys(sorted(hidden), True),
        "indexByName": {name: index for index, name in enumerate([*labels, *values])},
        "renameByName": {value: column.name for value, column in named.items() if column.name},
    }
    merge = [{"id": "merge", "options": {}}] if len(columns) > 1 else []
    made = panel(
        "table",
        title,
        description,
        [instant(column.expr, form="table") for column in columns],
        field("none", noValue=no_value, custom={"align": "auto", "filterable": True, "cellOptions": {"type": "auto"}}),
        transformations=[*merge, {"id": "organize", "options": organize}],
        options={
            "showHeader": True,
            "cellHeight": "sm",
            "footer": {"show": False, "reducer": ["sum"], "countRows": False, "fields": ""},
            "sortBy": [{"displayName": worst, "desc": descending}] if worst else [],
        },
        **more,
    )
    overrides = made["fieldConfig"]["overrides"]
    overrides += [column.override() for column in columns if column.name]
    if kind:
        link = {"id": "links", "value": link_to_target("${__data.fields.target}", kind)}
        overrides.append({"matcher": {"id": "byName", "options": "target"}, "properties": [link]})
    return made


def graph(
    title: str,
    description: str,
    *queries: Query,
    unit: str,
    steps: Steps = PLAIN,
    bars: bool = False,
    kind: str = "",
    dashed: str = "",
    units: dict[str, str] | None = None,
    **more: Any,
) -> Json:
    """Return lines, or stacked bars; `dashed` names a series that is a limit, `units` those of other series."""
    custom: Json = {
        "drawStyle": "bars" if bars else "line",
        "fillOpacity": 60 if bars else 8,
        "lineWidth": 0 if bars else 1,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if bars else "none", "group": "A"},
        "thresholdsStyle": {"mode": "off" if steps == PLAIN else "dashed"},
        "axisSoftMin": 0,
    }
    defaults = field(unit, None, steps, custom=custom, min=more.pop("minimum", None), color={"mode": "palette-classic"})
    if defaults["min"] is None:
        del defaults["min"]
    if kind:
        defaults["links"] = link_to_target("${__field.labels.target}", kind)
    made = panel(
        "timeseries",
        title,
        description,
        [ranged(query) for query in queries],
        defaults,
        options={
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        **more,
    )
    overrides = made["fieldConfig"]["overrides"]
    if dashed:
        style = [
            {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [8, 8]}},
            {"id": "custom.fillOpacity", "value": 0},
        ]
        overrides.append({"matcher": {"id": "byRegexp", "options": dashed}, "properties": style})
    for pattern, other in (units or {}).items():
        properties = [{"id": "unit", "value": other}, {"id": "custom.axisPlacement", "value": "right"}]
        overrides.append({"matcher": {"id": "byRegexp", "options": pattern}, "properties": properties})
    return made


def timeline(
    title: str,
    description: str,
    *queries: Query,
    mapping: Mapping | None = OK_FAIL,
    steps: Steps = PLAIN,
    kind: str = "",
    **more: Any,
) -> Json:
    """Return a bar for each series, coloured by its state."""
    defaults = field("none", mapping, steps, custom={"fillOpacity": 80, "lineWidth": 0}, color={"mode": "thresholds"})
    if kind:
        defaults["links"] = link_to_target("${__field.labels.target}", kind)
    return panel(
        "state-timeline",
        title,
        description,
        [ranged(query) for query in queries],
        defaults,
        options={
            "mergeValues": True,
            "showValue": "auto",
            "alignValue": "left",
            "rowHeight": 0.85,
            "perPage": 20,
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False},
            "tooltip": {"mode": "single", "sort": "none"},
        },
        **more,
    )


def text(title: str, content: str, **more: Any) -> Json:
    """Return a note; only for what no number can say."""
    return {"type": "text", "title": title, "options": {"mode": "markdown", "content": content}} | more


@dataclass(frozen=True)
class Row:
    """Panels beside each other, of one height; those without a `width` share what is left of 24."""

    height: int
    panels: tuple[Json, ...]

    def placed(self, y: int) -> Iterator[Json]:
        """Yield the panels with their places."""
        x = 0
        free = 24 - sum(one.get("width", 0) for one in self.panels)
        without = sum("width" not in one for one in self.panels)
        for one in self.panels:
            width = one.get("width") or free // without
            place = {"h": self.height, "w": width, "x": x, "y": y}
            yield {key: value for key, value in one.items() if key != "width"} | {"gridPos": place}
            x += width


@dataclass(frozen=True)
class Section:
    """A heading and the rows below it; a collapsed one asks nothing until it is opened."""

    title: str
    rows: tuple[Row, ...]
    collapsed: bool = False


def row(height: int, *panels: Json) -> Row:
    """Return panels beside each other."""
    return Row(height, panels)


def layout(parts: list[Row | Section]) -> list[Json]:
    """Place the rows below each other and number the panels."""
    placed: list[Json] = []
    y = 0
    for part in parts:
        if isinstance(part, Row):
            placed += part.placed(y)
            y += part.height
            continue
        inside: list[Json] = []
        below = y + 1
        for one in part.rows:
            inside += one.placed(below)
            below += one.height
        heading = {"type": "row", "title": part.title, "collapsed": part.collapsed}
        heading |= {"gridPos": {"h": 1, "w": 24, "x": 0, "y": y}, "panels": inside if part.collapsed else []}
        placed += [heading] if part.collapsed else [heading, *inside]
        y = y + 1 if part.collapsed else below
    everything = [each for one in placed for each in (one, *one.get("panels", ()))]
    for number, each in enumerate(everything, start=1):
        each["id"] = number
    return placed


def variable(name: str, query: str, description: str, all_value: str | None = None) -> Json:
    """Return a variable of label values; several may be chosen, and all are at first."""
    return {
        "name": name,
        "type": "query",
        "label": name,
        "description": description,
        "datasource": SOURCE,
        "definition": query,
        "query": {"qryType": 1, "query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "current": {"text": ["All"], "value": ["$__all"]},
        "options": [],
    } | ({"allValue": all_value} if all_value else {})


def annotation(name: str, color: str, expr: str, label: str, *, at_value: bool) -> Json:
    """Return marks in the graphs: where a query is above 0, or at the moments that are its values, in ms."""
    return {
        "name": name,
        "datasource": SOURCE,
        "enable": True,
        "hide": False,
        "iconColor": color,
        "expr": expr,
        "step": "60s",
        "titleFormat": name,
        "textFormat": label,
        "tagKeys": "",
        "useValueForTime": at_value,
    }


def dashboard(  # noqa: PLR0917
    name: str,
    title: str,
    description: str,
    variables: list[Json],
    annotations: list[Json],
    parts: list[Row | Section],
) -> Json:
    """Return a whole dashboard."""
    source = {
        "name": "datasource",
        "type": "datasource",
        "label": "datasource",
        "query": "prometheus",
        "current": {},
        "options": [],
        "refresh": 1,
        "regex": "",
        "multi": False,
        "includeAll": False,
    }
    built_in = {
        "builtIn": 1,
        "datasource": {"type": "grafana", "uid": "-- Grafana --"},
        "enable": True,
        "hide": True,
        "iconColor": "rgba(0, 211, 255, 1)",
        "name": "Annotations & Alerts",
        "type": "dashboard",
    }
    others = {
        "type": "dashboards",
        "title": "Health",
        "tags": [TAG],
        "asDropdown": False,
        "includeVars": False,
        "keepTime": True,
        "targetBlank": False,
        "icon": "external link",
        "tooltip": "",
        "url": "",
    }
    return {
        "uid": f"{TAG}-{name}",
        "title": f"Health / {title}",
        "description": description,
        "tags": [TAG],
        "schemaVersion": 41,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "fiscalYearStartMonth": 0,
        "preload": False,
        "refresh": "1m",
        "time": {"from": "now-6h", "to": "now"},
        "timepicker": {},
        "timezone": "browser",
        "weekStart": "",
        "links": [others],
        "annotations": {"list": [built_in, *annotations]},
        "templating": {"list": [source, *variables]},
        "panels": layout(parts),
    }


# --- what several dashboards have -----------------------------------------------------------------------------------


def target_variables(kind: str = "") -> list[Json]:
    """Return the variables job and target; of one kind, or of all."""
    collector = f'collector="{kind}"' if kind else 'collector!=""'
    jobs = 'label_values({__name__=~"probe_check_success|health_exporter_build_info"}, job)'
    return [
        variable("job", jobs, "Scrape jobs. A target that two jobs scrape stands twice: choose one of them."),
        variable(
            "target",
            f'label_values(probe_success{{{collector},job=~"$job"}}, target)',
            "Targets, by the name they have in the exporter's config.",
            ".+",
        ),
    ]


def start_mark(name: str, color: str, metric: str, label: str) -> Json:
    """Return marks at the start times a metric tells."""
    return annotation(name, color, f"{now(metric)} * 1000", label, at_value=True)


EXPORTER_STARTS = annotation(
    "Exporter started",
    "blue",
    'max by (job, instance) (process_start_time_seconds{job=~"$job"}) * 1000',
    "{{job}} {{instance}}",
    at_value=True,
)
HOST_STARTS = start_mark("Bundle host started", "orange", "bundle_host_start_time_seconds", "{{target}}")
SYSTEM_STARTS = start_mark("Service started", "orange", "system_health_start_time_seconds", "{{target}}")
BUNDLE_RESTARTS = annotation(
    "Bundle restarted",
    "purple",
    f"sgn({over_time('increase', 'bundle_restarts_total')}) > 0",
    "{{target}} {{bundle}}",
    at_value=False,
)


def failing_now(kind: str, **more: Any) -> Json:
    """Return the table of what fails now and why, worst first."""
    which = {"collector": kind} if kind else {}
    failing = "probe_check_failure_reason"
    reasons = now(failing, **which)
    service = now(failing, f'reason!~"{MONITOR_OWN}"', **which)
    not_own = now(failing, 'reason!~"auth|internal"', **which)
    passed = now("probe_check_success", f'check!~"{NOT_LIVE}"', drop="check", **which)
    down = f"{not_own} and on (job, target) {passed} == 0"
    return table(
        "Failing now",
        "Every check that fails, with its reason. critical: no live check of the target passes. warning: the service "
        "fails this check. configuration: credentials, address, a limit of ours or a bug of the exporter; the service "
        "may be well. Empty is good.",
        (*(() if kind else ("collector",)), "target", "check", "reason"),
        Column("severity", f"3 * ({down}) or 2 * {service} or {reasons}", mapping=SEVERITY),
        worst="severity",
        descending=True,
        no_value="nothing fails",
        kind=kind or "${__data.fields.collector}",
        **more,
    )


def checks(kind: str, *, remembered: bool = True) -> Section:
    """Return what every kind of target has: its checks, how long they take, what HTTP said."""
    of_kind = {"collector": kind}
    codes: Steps = ((None, BLUE), (200, GREEN), (300, YELLOW), (400, ORANGE), (500, RED))
    http = timeline(
        "HTTP status",
        "Status of each check's answer; a gap where no status line came or a remembered answer was used. A 4xx is not "
        "always bad: some checks expect one.",
        Query(now("probe_check_http_status_code", **of_kind), "{{target}} {{check}}"),
        mapping=None,
        steps=codes,
    )
    asked = table(
        "Remembered answers",
        "Checks with an interval: when each was really asked. In between its last answer is shown; older than its "
        "interval and a minute more is bad.",
        ("target", "check"),
        Column("asked", f"{now('probe_check_asked_timestamp_seconds', **of_kind)} * 1000", "dateTimeFromNow"),
        worst="asked",
        width=8,
    )
    return Section(
        "Checks",
        (
            row(
                8,
                failing_now(kind, width=9),
                timeline(
                    "Checks over time",
                    "Every check of every target. A check that is left out has no bar; a gap means that nobody probed.",
                    Query(now("probe_check_success", **of_kind), "{{target}} {{check}}"),
                ),
            ),
            row(
                7,
                graph(
                    "Probe against its budget",
                    "How long whole probes took, of that the name lookups, and what the request allowed (dashed). "
                    "Near the budget is bad: the next slowdown turns into timeouts.",
                    Query(now("probe_duration_seconds", **of_kind), "{{target}}"),
                    Query(now("probe_timeout_seconds", **of_kind), "{{target}} budget"),
                    Query(now("probe_dns_lookup_time_seconds", **of_kind), "{{target}} name lookups"),
                    unit="s",
                    dashed="/ budget$/",
                ),
                graph(
                    "Duration of each check",
                    "How long each check took; none for a remembered answer. One that grows shows what slows down.",
                    Query(now("probe_check_duration_seconds", **of_kind), "{{target}} {{check}}"),
                    unit="s",
                ),
                graph(
                    "Slowest exchange by phase",
                    "The longest of each phase over a target's checks. resolve, connect and tls point at the network "
                    "or the proxy, processing at the service, transfer at the size of the answer.",
                    Query(now("probe_check_http_duration_seconds", **of_kind, drop="check"), "{{target}} {{phase}}"),
                    unit="s",
                ),
            ),
            row(6, http, *([asked] if remembered else [])),
        ),
    )


def target_columns(kind: str) -> list[Column]:
    """Return the columns a table of targets begins with; the first brings the label url."""
    return [
        Column("status", now("probe_success", collector=kind), mapping=OK_FAIL),
        Column("certificate", expires("probe_ssl_earliest_cert_expiry", collector=kind), "s", steps=EXPIRY),
        Column("", now("probe_target_info", collector=kind)),
    ]


def expires(metric: str, **equal: str) -> str:
    """Return the seconds until a moment."""
    return f"{now(metric, **equal)} - time()"


# --- overview -------------------------------------------------------------------------------------------------------


def unwell(severity: int, collector: str, expr: str, what: str, label: str = "") -> str:
    """Return a finding as a series with the labels collector and what; `$1` in `what` is the value of `label`."""
    named = f'label_replace(0 * ({expr}) + {severity}, "what", "{what}", "{label}", "(.*)")'
    return f'label_replace({named}, "collector", "{collector}", "", "")'


def crash_looping() -> str:
    """Return the bundles that are restarted again and again, as the recording rule has it: 4 times, or in cooldown."""
    cooling = series("bundle_instances", state="cooldown")
    restarts = over_time("increase", "bundle_restarts_total", window="15m")
    return f"{restarts} >= 4 or max without ({ONE}, state) (max_over_time({cooling}[10m])) > 0"


def findings() -> str:
    """Return what services say is not well with them though their checks pass."""
    key = "on (job, target, unique_key) group_left (name)"
    info = f"topk by (job, target, unique_key) (1, {series('healthchecks_check_info')})"
    enabled = f"and on (job, target, integration) {now('system_health_integration_enabled')} == 1"
    not_ok = now("system_health_status", 'status!="ok"')
    anomalies = now("system_health_consistency_anomalies", 'level!="info"')
    parts = (
        unwell(2, "pryv", f"{now('pryv_hosting_available', drop='hosting')} == 0", "no hosting takes new accounts"),
        unwell(2, "pryv", f"abs({now('pryv_clock_skew_seconds')}) > 5", "its clock and the exporter's differ"),
        unwell(
            2,
            "pryv",
            f"{expires('pryv_token_expiry_timestamp_seconds')} < {14 * DAY}",
            "the token expires within 14 days",
        ),
        unwell(3, "bundles", f"{now('bundle_expected_missing')} == 1", "bundle $1 is missing", "bundle"),
        unwell(2, "bundles", f"{now('bundle_up')} == 0", "bundle $1 is not up", "bundle"),
        unwell(2, "bundles", crash_looping(), "bundle $1 crash-loops", "bundle"),
        unwell(2, "system_health", f"{not_ok} == 1", "says it is $1", "status"),
        unwell(3, "system_health", f"{now('system_health_component_up')} == 0", "component $1 in error", "component"),
        unwell(
            2,
            "system_health",
            f"{now('system_health_pipeline_processor_ready')} == 0",
            "processor $1 is not ready",
            "processor",
        ),
        unwell(2, "system_health", f"{now('system_health_pipeline_scripts_ready')} == 0", "the scripts are not there"),
        unwell(2, "system_health", f"{now('system_health_pipeline_models_ready')} == 0", "the models are not there"),
        unwell(2, "system_health", f"{now('system_health_pipeline_ffmpeg_ready')} == 0", "ffmpeg is not ready"),
        unwell(2, "system_health", f"{now('system_health_schema_ok')} == 0", "the schema is outdated"),
        unwell(
            2, "system_health", f"{now('system_health_identities_synced')} == 0", "identities differ from the database"
        ),
        unwell(2, "system_health", f"{now('system_health_identities_index_ok')} == 0", "the identities' index is bad"),
        unwell(
            2,
            "system_health",
            f"{now('system_health_integration_api_reachable')} == 0 {enabled}",
            "integration $1 is not reachable",
            "integration",
        ),
        unwell(
            2,
            "system_health",
            f"{anomalies} > 0",
            "anomaly $1",
            "anomaly",
        ),
        unwell(3, "healthchecks", f"{now('healthchecks_alerting_lag_seconds')} > 60", "it does not send its alerts"),
        unwell(
            2,
            "healthchecks",
            f"({now('healthchecks_check_status', status='down')} == 1) * {key} {info}",
            "check $1 is down",
            "name",
        ),
    )
    return f"max by (job, collector, target, what) ({' or '.join(parts)})"


def overview() -> Json:
    """Return everything on one screen, worst first."""
    success = now("probe_success")
    not_probed = (
        'group by (target) (health_exporter_checks_total{target!~"module:.*"}) unless on (target) probe_success'
    )
    verdicts = f"sum without ({ONE}) (sum_over_time({series('probe_success')}[$__range]))"
    probes = f"sum without ({ONE}) (count_over_time({series('probe_success')}[$__range]))"
    errors = series("target:probe_error:max")
    budget = f"1 - max without ({ONE}) (avg_over_time({errors}[30d])) / {ERROR_BUDGET}"
    to_details = "${__data.fields.collector}"
    numbers = row(
        3,
        stat(
            "Targets failing",
            "Targets of which at least one check fails. Above 0 is bad.",
            count(f"{success} == 0", success),
        ),
        stat(
            "Checks failing",
            "Failing checks over all targets. Above 0 is bad; the table below names them.",
            count(f"{now('probe_check_success')} == 0", success),
        ),
        stat(
            "Things unwell",
            "Bundles, components, cron checks and the like that a service says are not well. Above 0 is bad.",
            count(findings(), success),
            steps=WARN_FROM_ONE,
        ),
        stat(
            "Targets not watched",
            "Targets in the exporter's config of which Prometheus has no probe. Above 0 is bad: none of their alerts "
            "can fire.",
            count(not_probed, "health_exporter_checks_total"),
            steps=WARN_FROM_ONE,
        ),
        stat(
            "Scrapes failing",
            "Exporters, and targets under /probe, that Prometheus cannot scrape. Above 0 is bad: nothing is known.",
            count('up{job=~"$job"} == 0', 'up{job=~"$job"}'),
        ),
        stat(
            "Budgets spent",
            "Targets that have used up their error budget of 30 days (0.5 %). Above 0 is bad. Prometheus has to have "
            "alerts/recording.yml.",
            count(f"{budget} < 0", errors),
        ),
        stat(
            "Next certificate",
            "Time until the next certificate of any target expires. Orange below 14 days, red below 3.",
            f"min({expires('probe_ssl_earliest_cert_expiry')})",
            unit="s",
            steps=EXPIRY,
        ),
        stat("Targets", "Targets that are probed.", f"count({success})", steps=PLAIN),
    )
    worst = row(
        8,
        failing_now("", width=12),
        table(
            "Unwell, though it answers",
            "What services themselves say is not well; no check fails for it. Empty is good. The reports are as good "
            "as the service that makes them.",
            ("collector", "target", "what"),
            Column("severity", findings(), mapping=SEVERITY),
            worst="severity",
            descending=True,
            no_value="nothing is unwell",
            kind=to_details,
        ),
    )
    history = row(
        8,
        timeline(
            "Status over time",
            "Each target: OK while every check passes. Red bars that come and go are a flapping target; a gap means "
            "that nobody probed.",
            Query(success, "{{target}}"),
            kind="${__field.labels.collector}",
            width=14,
        ),
        table(
            "Availability and error budget",
            "passed: share of the probes in the time shown that passed. budget left: of the 0.5 % of failing time "
            "that 30 days allow; negative is spent. Failures for auth, internal and too_large burn no budget. The "
            "budget needs alerts/recording.yml in Prometheus.",
            ("collector", "target"),
            Column("passed", f"{verdicts} / {probes}", "percentunit", steps=((None, RED), (0.995, GREEN))),
            Column("budget left", budget, "percentunit", steps=((None, RED), (0, ORANGE), (0.5, GREEN))),
            worst="passed",
            kind=to_details,
        ),
    )
    trends = row(
        7,
        table(
            "Slowest probes",
            "The share of its budget that each probe needs. Above 80 % is bad: the next slowdown turns into timeouts.",
            ("collector", "target"),
            Column(
                "used",
                f"topk(20, {now('probe_duration_seconds')} / {now('probe_timeout_seconds')})",
                "percentunit",
                steps=((None, GREEN), (0.5, YELLOW), (0.8, RED)),
                gauge=True,
            ),
            worst="used",
            descending=True,
            hide=("collector",),
            kind=to_details,
        ),
        table(
            "Certificates",
            "When the earliest certificate of each target's connections expires. Orange below 14 days: renewal should "
            "have happened. Absent for plain http.",
            ("collector", "target"),
            Column("left", expires("probe_ssl_earliest_cert_expiry"), "s", steps=EXPIRY),
            Column("expires", f"{now('probe_ssl_earliest_cert_expiry')} * 1000", "dateTimeAsIso"),
            worst="left",
            no_value="no target has TLS",
            kind=to_details,
        ),
        graph(
            "Failing checks by reason",
            "How many checks fail, by reason. Many at once with dns, connect or timeout: look at the exporter's own "
            "network first.",
            Query(f"count by (reason) ({now('probe_check_failure_reason')})", "{{reason}}"),
            unit="short",
            bars=True,
        ),
        graph(
            "Changes",
            "Verdicts that turned, and restarts: of services, bundles, exporters. Clusters of them are bad, and what "
            "turned first is often the cause.",
            Query(f"{over_time('changes', 'probe_success')} > 0", "{{target}} turned"),
            Query(f"{over_time('changes', 'bundle_host_start_time_seconds')} > 0", "{{target}} restarted"),
            Query(f"{over_time('changes', 'system_health_start_time_seconds')} > 0", "{{target}} restarted"),
            Query(f"{over_time('increase', 'bundle_restarts_total')} > 0", "{{target}} {{bundle}} restarted"),
            Query('changes(process_start_time_seconds{job=~"$job"}[$__rate_interval]) > 0', "{{instance}} restarted"),
            unit="short",
            bars=True,
        ),
    )
    return dashboard(
        "overview",
        "Overview",
        "All targets on one screen, worst first. Select a target to go to its details.",
        target_variables(),
        [EXPORTER_STARTS, HOST_STARTS, SYSTEM_STARTS, BUNDLE_RESTARTS],
        [numbers, worst, history, trends],
    )


# --- pryv -----------------------------------------------------------------------------------------------------------

GUIDE_BLIND = """\
**hfs** passes whenever some HTTP process answers: also with a wrong token, a dead database, or an HFS worker that hangs
for ever on every series. **series** sees these; `series` = timeout while `hfs` passes: restart the HFS worker.

**registration** passes from the worker's memory with PostgreSQL down, and never asks the platform database:
**platform** does.

**dns** passes for a core that is dead.

Nobody sees: whether events can be *written*; a broken audit table; other users' data.
"""


def pryv() -> Json:
    """Return the dashboard of Pryv cores."""
    deployments = table(
        "Deployments",
        "One line for each core. FAIL: some check fails. registered no: the core does not know the health account. "
        "token: time until it expires, empty if it never does or could not be read; orange below 14 days. hfs no: the "
        "deployment serves no series, so that hfs and series are not checked.",
        ("target", "url", "name", "serial", "api_version", "access_type", "level"),
        *target_columns("pryv"),
        Column("", now("pryv_info")),
        Column("", now("pryv_token_info")),
        Column("token", expires("pryv_token_expiry_timestamp_seconds"), "s", steps=EXPIRY),
        Column("registered", now("pryv_username_registered"), mapping=YES_NO),
        Column("hfs", now("pryv_hfs_enabled"), mapping=NEUTRAL),
        worst="status",
        no_value="",
    )
    details = row(
        7,
        text("What the checks cannot see", GUIDE_BLIND),
        timeline(
            "Hostings",
            "Whether every hosting of that id is marked available. A flag set by the administrator, no sign of life. "
            "All red: nobody can register.",
            Query(now("pryv_hosting_available"), "{{target}} {{hosting}}"),
            mapping={1: ("open", GREEN), 0: ("closed", RED)},
        ),
        graph(
            "Clock skew",
            "The server's clock minus the exporter's. More than 5 s either way is bad; if several targets say so, it "
            "is the exporter's clock.",
            Query(now("pryv_clock_skew_seconds"), "{{target}}"),
            unit="s",
            steps=((None, RED), (-5, "transparent"), (5, RED)),
        ),
        graph(
            "DNS answers",
            "A records of the account's name, and their smallest TTL (right). 0 records or a change nobody made is "
            "bad. Only for targets with a domain.",
            Query(now("pryv_dns_answers"), "{{target}} records"),
            Query(now("pryv_dns_ttl_seconds"), "{{target}} TTL"),
            unit="short",
            units={"/ TTL$/": "s"},
        ),
    )
    return dashboard(
        "pryv",
        "Pryv",
        "Pryv.io cores: the checks of Pryv's health-check guide, and those that see what the guide's cannot.",
        target_variables("pryv"),
        [EXPORTER_STARTS],
        [row(6, deployments), checks("pryv"), Section("Pryv", (details,))],
    )


# --- bundles --------------------------------------------------------------------------------------------------------

BUNDLES_BLIND = """\
A bundle that **hangs** reads healthy: the host only sees that its process runs. A **remote** bundle that is gone reads
healthy until somebody calls it.

A bundle that **crash-loops** reads healthy most of the time: look at its restarts, not at its state. After five
restarts it is in `cooldown` for five minutes, and *in a row* is 0 again.

A bundle that fails while the host boots is not listed at all: only `expect` in the exporter's config finds it missing.
"""


def bundles() -> Json:
    """Return the dashboard of bundle hosts."""
    missing = f"{now('bundle_expected_missing')} == 1"
    numbers = row(
        3,
        stat(
            "Hosts failing",
            "Hosts of which a check fails. Above 0 is bad.",
            count(f"{kind_success('bundles')} == 0", kind_success("bundles")),
        ),
        stat(
            "Bundles not up",
            "Bundles of which not every instance is running or healthy. Above 0 is bad, but for bundles stopped or "
            "uninstalled on purpose.",
            count(f"{now('bundle_up')} == 0", now("bundle_up")),
            steps=WARN_FROM_ONE,
        ),
        stat(
            "Expected bundles missing",
            "Bundles of `expect` that the host does not list. Above 0 is bad.",
            count(missing, series("probe_success", collector="bundles")),
        ),
        stat(
            "Crash-looping",
            "Bundles with 4 or more restarts within 15 minutes, or in cooldown within 10. Above 0 is bad.",
            count(crash_looping(), now("bundle_up")),
        ),
        stat(
            "Restarts",
            "Restarts of bundles in the time shown.",
            f"round(sum({over_time('increase', 'bundle_restarts_total', window='$__range')}))",
            steps=PLAIN,
        ),
        stat(
            "Entries skipped",
            "Entries of replies that could not be read. Above 0 is bad: the host is newer than the exporter.",
            f"sum({now('bundle_host_entries_skipped')})",
            steps=WARN_FROM_ONE,
        ),
    )
    main = row(
        9,
        table(
            "Bundles",
            "Every bundle, one line for each state its instances are in. up no: not every instance is running or "
            "healthy. in a row: restarts since the host last found it well. restarts: in the time shown. last restart: "
            "seen by the exporter. Empty where the host does not tell.",
            ("target", "bundle", "state"),
            Column("up", now("bundle_up"), mapping=YES_NO),
            Column("instances", f"{now('bundle_instances')} > 0"),
            Column("started", f"{now('bundle_start_time_seconds')} * 1000", "dateTimeFromNow"),
            Column("in a row", now("bundle_consecutive_restarts"), steps=((None, GREEN), (1, ORANGE), (4, RED))),
            Column("restarts", f"round({over_time('increase', 'bundle_restarts_total', window='$__range')})"),
            Column("last restart", f"{now('bundle_last_restart_timestamp_seconds')} * 1000", "dateTimeFromNow"),
            worst="up",
            no_value="",
            width=18,
        ),
        table(
            "Missing bundles",
            "Bundles of `expect` that the host does not list: failed at boot, without credentials, or never installed. "
            "Empty is good.",
            ("target", "bundle"),
            Column("missing", missing, mapping={1: ("missing", RED)}),
            no_value="none is missing",
        ),
    )
    history = row(
        8,
        timeline(
            "Bundles over time",
            "Each bundle: OK while all its instances are running or healthy. Short reds that repeat are a crash loop.",
            Query(now("bundle_up"), "{{target}} {{bundle}}"),
            width=12,
        ),
        graph(
            "Bundles by state",
            "How many bundles are in each state. Anything but running and healthy that stays is bad.",
            Query(f"sum by (state) ({now('bundle_host_bundles')}) > 0", "{{state}}"),
            unit="short",
            bars=True,
        ),
        graph(
            "Restarts over time",
            "Restarts of each bundle seen by the exporter. One now and then is harmless, several in a row are not.",
            Query(f"{over_time('increase', 'bundle_restarts_total')} > 0", "{{target}} {{bundle}}"),
            unit="short",
            bars=True,
        ),
    )
    hosts = row(
        6,
        table(
            "Hosts",
            "One line for each host. offered no: the host has no /v1/bundles/health, so that there are no restarts and "
            "uptimes. skipped: entries that could not be read, above 0 is bad.",
            ("target", "url", "version", "build_sha"),
            *target_columns("bundles"),
            Column("", now("bundle_host_info")),
            Column("started", f"{now('bundle_host_start_time_seconds')} * 1000", "dateTimeFromNow"),
            Column("offered", now("bundle_endpoint_offered", drop="api", api="bundles"), mapping=NEUTRAL),
            Column("skipped", now("bundle_host_entries_skipped"), steps=WARN_FROM_ONE),
            worst="status",
            no_value="",
            width=16,
        ),
        text("What the checks cannot see", BUNDLES_BLIND),
    )
    return dashboard(
        "bundles",
        "Bundles",
        "MCP-bundle hosts and their bundles.",
        target_variables("bundles"),
        [EXPORTER_STARTS, HOST_STARTS, BUNDLE_RESTARTS],
        [numbers, main, history, Section("Hosts", (hosts,)), checks("bundles", remembered=False)],
    )


def kind_success(kind: str) -> str:
    """Return the verdicts of the targets of a kind."""
    return now("probe_success", collector=kind)


# --- system health --------------------------------------------------------------------------------------------------

STATUS = ("ok", "degraded", "error", "unknown")
STATUS_COLORS: Mapping = {1: ("ok", GREEN), 2: ("degraded", ORANGE), 3: ("error", RED), 4: ("unknown", BLUE)}


def system_health() -> Json:
    """Return the dashboard of system-health services."""
    of = "system_health_"
    worst_first = (
        timeline(
            "Status",
            "What each service says of itself. degraded and error are bad; unknown is a word this exporter does not "
            "know.",
            Query(state(f"{of}status", *STATUS), "{{target}}"),
            mapping=STATUS_COLORS,
        ),
        timeline(
            "Components",
            "What each service says of its components. error is bad; no bar where the component was not reported.",
            Query(state(f"{of}component_status", *STATUS), "{{target}} {{component}}"),
            mapping=STATUS_COLORS,
        ),
        table(
            "Components now",
            "Every component, worst first. up no: in error. latency: as the service measured it.",
            ("target", "component", "status"),
            Column("up", now(f"{of}component_up"), mapping=YES_NO),
            Column("", f"{now(f'{of}component_status')} == 1"),
            Column("latency", now(f"{of}component_latency_seconds"), "s"),
            worst="up",
            no_value="",
        ),
    )
    load = (
        graph(
            "CPU and memory used",
            "As the service reports its host. Memory near 100 % is bad.",
            Query(now(f"{of}cpu_used_ratio"), "{{target}} CPU"),
            Query(now(f"{of}memory_used_ratio"), "{{target}} memory"),
            unit="percentunit",
            steps=((None, "transparent"), (0.9, RED)),
        ),
        graph(
            "Memory available",
            "As the service reports its host. Falling towards 0 is bad.",
            Query(now(f"{of}memory_available_bytes"), "{{target}}"),
            unit="bytes",
        ),
        graph(
            "Latency of components",
            "As the service measured it. One that grows is the cause of a slow service.",
            Query(now(f"{of}component_latency_seconds"), "{{target}} {{component}}"),
            unit="s",
        ),
    )
    pipeline = (
        table(
            "Pipeline",
            "Whether the directories of scripts and models, and ffmpeg, are there, and how many scripts and models "
            "there are. intact: scripts with the right checksum, of those checked; fewer means that scripts were "
            "modified. Any no is bad.",
            ("target",),
            Column("scripts ready", now(f"{of}pipeline_scripts_ready"), mapping=YES_NO),
            Column("scripts", now(f"{of}pipeline_scripts")),
            Column("models ready", now(f"{of}pipeline_models_ready"), mapping=YES_NO),
            Column("models", now(f"{of}pipeline_models")),
            Column("ffmpeg", now(f"{of}pipeline_ffmpeg_ready"), mapping=YES_NO),
            Column("checksums", now(f"{of}pipeline_scripts_integrity_ok"), mapping=YES_NO),
            Column("intact", now(f"{of}pipeline_scripts_intact")),
            Column("of checked", now(f"{of}pipeline_scripts_checked")),
            no_value="",
            width=14,
        ),
        timeline(
            "Processors",
            "Whether each processor is ready. Red for longer than a start takes is bad.",
            Query(now(f"{of}pipeline_processor_ready"), "{{target}} {{processor}}"),
            mapping={1: ("ready", GREEN), 0: ("not ready", RED)},
        ),
    )
    data = (
        table(
            "Schema and identities",
            "schema no: required migrations are missing. applied and required: migrations as the service lists them; a "
            "service that is well lists none as required. synced no: the identities' files and the database differ, "
            "which an import does for minutes.",
            ("target",),
            Column("schema", now(f"{of}schema_ok"), mapping=YES_NO),
            Column("table", now(f"{of}schema_table_exists"), mapping=YES_NO),
            Column("applied", now(f"{of}schema_migrations_applied")),
            Column("required", now(f"{of}schema_migrations_required")),
            Column("directory", now(f"{of}identities_directory_exists"), mapping=YES_NO),
            Column("files", now(f"{of}identities_files")),
            Column("index", now(f"{of}identities_index_ok"), mapping=YES_NO),
            Column("records", now(f"{of}identities_db_records")),
            Column("synced", now(f"{of}identities_synced"), mapping=YES_NO),
            worst="schema",
            no_value="",
            width=12,
        ),
        table(
            "Integrations",
            "Enabled without a key, or enabled and not reachable, is bad. Empty: the service did not ask.",
            ("target", "integration"),
            Column("enabled", now(f"{of}integration_enabled"), mapping=NEUTRAL),
            Column("key", now(f"{of}integration_api_key_configured"), mapping=YES_NO),
            Column("reachable", now(f"{of}integration_api_reachable"), mapping=YES_NO),
            worst="reachable",
            no_value="",
            width=7,
        ),
        table(
            "Toggles",
            "What the service's own config has switched on. For reading only.",
            ("target", "toggle"),
            Column("enabled", now(f"{of}config_enabled"), mapping=NEUTRAL),
            no_value="",
        ),
    )
    consistency = (
        timeline(
            "Consistency",
            "Verdict of the last scan for stale or orphaned data, which is asked only now and then.",
            Query(state(f"{of}consistency_status", *STATUS), "{{target}}"),
            mapping=STATUS_COLORS,
        ),
        graph(
            "Anomalies",
            "What the scan has found, by kind and severity. Anything but info that stays over several scans is bad.",
            Query(f"{now(f'{of}consistency_anomalies')} > 0", "{{target}} {{anomaly}} ({{level}})"),
            unit="short",
            bars=True,
        ),
    )
    services = (
        table(
            "Services",
            "What runs where. consistency: when the service last scanned. skipped: fields of replies that could not be "
            "read, above 0 is bad.",
            ("target", "version", "build_git_hash"),
            *target_columns("system_health"),
            Column("", now(f"{of}info")),
            Column("built", f"{now(f'{of}build_timestamp_seconds')} * 1000", "dateTimeAsIso"),
            Column("started", f"{now(f'{of}start_time_seconds')} * 1000", "dateTimeFromNow"),
            Column("consistency", f"{now(f'{of}consistency_checked_timestamp_seconds')} * 1000", "dateTimeFromNow"),
            Column("skipped", now(f"{of}fields_skipped"), steps=WARN_FROM_ONE),
            worst="status",
            no_value="",
        ),
    )
    return dashboard(
        "system_health",
        "System health",
        "Services with a system-health API: what they say of their components, pipeline, data and host.",
        target_variables("system_health"),
        [EXPORTER_STARTS, SYSTEM_STARTS],
        [
            row(8, *worst_first),
            checks("system_health"),
            Section("Load", (row(7, *load),)),
            Section("Pipeline, data and integrations", (row(7, *pipeline), row(7, *data))),
            Section("Consistency and builds", (row(7, *consistency), row(6, *services))),
        ],
    )


# --- healthchecks ---------------------------------------------------------------------------------------------------

CRON_STATES = ("paused", "new", "up", "grace", "unknown", "down")
CRON_COLORS: Mapping = dict(enumerate(zip(CRON_STATES, (GREY, BLUE, GREEN, YELLOW, BLUE, RED), strict=True), start=1))
NOT_UP_COLORS: Mapping = {3: ("down", RED), 2: ("unknown", BLUE), 1: ("grace", ORANGE)}
CRON_BLIND = """\
**Alerting lag** is 0 as long as nothing is overdue: a dead alert loop shows only once some check misses its time.

**started** stays until the job ends or is overdue: a job that hangs shows as running, then as down.

**Paused** checks are never down.
"""


def healthchecks() -> Json:
    """Return the dashboard of Healthchecks projects."""
    of = "healthchecks_check_"
    key = "on (job, target, unique_key)"
    not_well = 'status=~"down|grace|unknown"'
    bad = f"({now(f'{of}status', not_well)} == 1)"
    ever_bad = f"(max_over_time({series(f'{of}status', not_well)}[$__range]) == 1)"
    info = f"topk by (job, target, unique_key) (1, {series(f'{of}info')})"
    chosen = series(f"{of}info", 'name=~"(?i).*$name.*"')
    started = f"({now(f'{of}started')} == 1)"
    info_labels = ("unique_key", "slug", "tags", "tz", "instance", "pod", "exporter", "status", "kind", "schedule")

    def those(which: str, metric: str, after: str = "") -> str:
        return f"({now(of + metric)} and {key} {which}){after}"

    def times(which: str) -> list[Column]:
        return [
            Column("last ping", those(which, "last_ping_timestamp_seconds", " * 1000"), "dateTimeFromNow"),
            Column("deadline", those(which, "deadline_timestamp_seconds", " * 1000"), "dateTimeFromNow"),
            Column("took", those(which, "last_duration_seconds"), "s"),
            Column("period", those(which, "timeout_seconds"), "s"),
            Column("grace", those(which, "grace_seconds"), "s"),
        ]

    numbers = row(
        3,
        stat(
            "Down",
            "Checks that are down: their job missed its time, or said that it failed. Above 0 is bad.",
            f"sum({now('healthchecks_checks', status='down')})",
        ),
        stat(
            "In grace",
            "Checks that are late but within their grace time. Some are normal.",
            f"sum({now('healthchecks_checks', status='grace')})",
            steps=((None, GREEN), (1, YELLOW)),
        ),
        stat("Running", "Jobs that have said they started.", f"sum({now('healthchecks_checks_running')})", steps=PLAIN),
        stat(
            "Alerting lag",
            "How long the most overdue check that should have alerted has waited. Above 60 s is bad: Healthchecks does "
            "not send its alerts. 0 proves nothing while nothing is overdue.",
            f"max({now('healthchecks_alerting_lag_seconds')})",
            unit="s",
            steps=((None, GREEN), (60, RED)),
        ),
        stat(
            "Checks skipped",
            "Checks of replies that could not be read. Above 0 is bad: they are not watched.",
            f"sum({now('healthchecks_checks_skipped')})",
            steps=WARN_FROM_ONE,
        ),
        stat("Checks", "Checks that are watched.", f"sum({now('healthchecks_checks')})", steps=PLAIN),
    )
    worst = row(
        9,
        table(
            "Not up",
            "Checks that are down, late, or in a state this exporter does not know; worst first. deadline: when the "
            "grace time ends or ended. took: the last run. Empty is good.",
            ("target", "name"),
            Column("state", f"{state(f'{of}status', 'grace', 'unknown', 'down')}", mapping=NOT_UP_COLORS),
            Column("", f"{info} and {key} {bad}"),
            *times(bad),
            worst="state",
            descending=True,
            no_value="all are up",
            hide=info_labels,
            width=15,
        ),
        timeline(
            "Late or down in the time shown",
            "State of each check that was late, down or in an unknown state at some time. Yellow that repeats is a job "
            "that needs a longer period or grace.",
            Query(
                f"(({state(f'{of}status', *CRON_STATES)}) and {key} {ever_bad}) * {key} group_left (name) {info}",
                "{{target}} {{name}}",
            ),
            mapping=CRON_COLORS,
        ),
    )
    history = row(
        7,
        graph(
            "Checks by status",
            "How many checks are in each state. Many that turn down at once: look at the network or the ping endpoint.",
            Query(f"sum by (status) ({now('healthchecks_checks')}) > 0", "{{status}}"),
            unit="short",
            bars=True,
        ),
        graph(
            "Alerting lag over time",
            "How long the most overdue check that should have alerted has waited. A line that climbs from 0 is bad: "
            "the alert loop of Healthchecks is dead.",
            Query(now("healthchecks_alerting_lag_seconds"), "{{target}}"),
            unit="s",
            steps=((None, "transparent"), (60, RED)),
        ),
        graph(
            "Pings",
            "Pings a second of each project. A drop to 0 of a busy project is bad: pings do not arrive.",
            Query(
                f"sum without (unique_key) ({over_time('rate', f'{of}pings_total')})",
                "{{target}}",
            ),
            unit="reqps",
        ),
        text("What the numbers cannot say", CRON_BLIND),
    )
    jobs = row(
        8,
        table(
            "Running now",
            "Jobs that have said they started and not yet that they ended. took: the run before. One far over that is "
            "bad.",
            ("target", "name"),
            Column("running", started, mapping={1: ("running", BLUE)}),
            Column("", f"{info} and {key} {started}"),
            *times(started),
            worst="deadline",
            no_value="nothing runs",
            hide=info_labels,
        ),
        graph(
            "Longest runs",
            "The 10 jobs that took longest, by their last run. One that climbs towards its period is bad.",
            Query(
                f"topk(10, {now(f'{of}last_duration_seconds')}) * {key} group_left (name) {info}", "{{target}} {{name}}"
            ),
            unit="s",
        ),
    )
    projects = row(
        7,
        table(
            "Projects",
            "One line for each project (API key).",
            ("target", "url"),
            *target_columns("healthchecks"),
            worst="status",
            no_value="",
        ),
        table(
            "Integrations",
            "How many integrations of each kind a project has; known only with a read-write key. A project without any "
            "tells nobody.",
            ("target", "kind"),
            Column("integrations", now("healthchecks_integrations")),
            no_value="not asked, or none",
            width=6,
        ),
        graph(
            "Skipped",
            "Checks of replies that could not be read, by cause. Above 0 is bad: they are not watched.",
            Query(now("healthchecks_checks_skipped"), "{{target}} {{cause}}"),
            unit="short",
            width=8,
        ),
    )
    optional = row(
        7,
        graph(
            "Flips",
            "How often checks went up or down within the window of the config (flips.window). Many flips: a job that "
            "needs a longer period or grace.",
            Query(
                f"topk(20, {now(f'{of}flips')} > 0) * {key} group_left (name) {info}",
                "{{target}} {{name}} {{direction}}",
            ),
            unit="short",
        ),
        graph(
            "Tags",
            "Checks that are down, by tag; only with tag_metrics.",
            Query(f"{now('healthchecks_tag_checks', status='down')} > 0", "{{target}} {{tag}}"),
            unit="short",
            bars=True,
        ),
    )
    every = row(
        12,
        table(
            "All checks",
            "Every check with the chosen name (variable name, part of it or a regular expression). next ping: expected "
            "then; empty while the job runs. pings: since the check was made.",
            ("target", "name", "slug", "tags", "kind", "schedule", "tz"),
            Column("", f"topk by (job, target, unique_key) (1, {chosen})"),
            *times(chosen),
            Column("next ping", those(chosen, "next_ping_timestamp_seconds", " * 1000"), "dateTimeAsIso"),
            Column("pings", those(chosen, "pings_total")),
            worst="name",
            hide=info_labels,
        ),
    )
    name = {
        "name": "name",
        "type": "textbox",
        "label": "check name",
        "description": "Part of the names of the checks in All checks, or a regular expression.",
        "query": "",
        "current": {"text": "", "value": ""},
        "options": [],
    }
    return dashboard(
        "healthchecks",
        "Healthchecks",
        "Healthchecks projects: cron checks, and whether Healthchecks itself does its work.",
        [*target_variables("healthchecks"), name],
        [EXPORTER_STARTS],
        [
            numbers,
            worst,
            history,
            jobs,
            checks("healthchecks"),
            Section("Projects", (projects, optional)),
            Section("All checks", (every,), collapsed=True),
        ],
    )


# --- exporter -------------------------------------------------------------------------------------------------------


def exporter() -> Json:
    """Return the dashboard of the exporter itself."""
    me = "health_exporter_"
    mine = '{job=~"$job",instance=~"$instance"}'
    internal = 'probe_check_failure_reason{reason="internal",target=~"$target"}'
    by_target = '{job=~"$job",instance=~"$instance",target=~"$target"}'

    def rate(metric: str, labels: str = mine) -> str:
        return f"rate({metric}{labels}[$__rate_interval])"

    numbers = row(
        3,
        stat(
            "Down",
            "Exporters Prometheus cannot scrape. Above 0 is bad: nothing of their targets is known.",
            count('up{job=~"$job"} == 0', 'up{job=~"$job"}'),
        ),
        stat(
            "Config",
            "Whether the config was good when it was last read. REFUSED: the exporter goes on with the old one.",
            f"min({me}config_last_reload_successful{mine})",
            unit="none",
            steps=((None, RED), (1, GREEN)),
            mapping={1: ("OK", GREEN), 0: ("REFUSED", RED)},
        ),
        stat(
            "Config read",
            "When a good config was last read.",
            f"max({me}config_last_reload_success_timestamp_seconds{mine}) * 1000",
            unit="dateTimeFromNow",
            steps=PLAIN,
        ),
        stat(
            "Rejected in an hour",
            "Requests turned away for overload or while draining. Above 0 is bad: those scrapes failed.",
            f"round(sum(increase({me}requests_rejected_total{mine}[1h])))",
        ),
        stat(
            "Secrets unread in an hour",
            "Secret files that could not be read again. Above 0 is bad: the last good value is in use.",
            f"round(sum(increase({me}secret_read_failures_total{by_target}[1h])))",
        ),
        stat(
            "Bugs",
            "Checks that fail with internal: a bug of the exporter; its log has the exception. Above 0 is bad.",
            count(f"max without ({ONE}) ({internal})", f"{me}build_info{mine}"),
        ),
        stat("Targets", "Targets in the config.", f"sum({me}targets{mine})", steps=PLAIN),
    )
    about = row(
        6,
        table(
            "Exporters",
            "Which version runs where, and since when.",
            ("instance", "version", "revision", "python_version"),
            Column("", f"{me}build_info{mine}"),
            Column("started", f"process_start_time_seconds{mine} * 1000", "dateTimeFromNow"),
            hide=("__name__",),
            width=14,
        ),
        graph(
            "Targets by kind",
            "Targets in the config, by kind. A step nobody made is bad.",
            Query(f"sum by (collector) ({me}targets{mine})", "{{collector}}"),
            unit="short",
        ),
    )
    requests = (
        row(
            7,
            graph(
                "Requests",
                "Requests a second, by path and status. 400 is a wrong scrape config, 503 overload.",
                Query(f"sum by (handler, code) ({rate(me + 'http_requests_total')})", "{{handler}} {{code}}"),
                unit="reqps",
            ),
            graph(
                "In flight",
                "Requests to /metrics and /probe being answered. Near --web.max-requests (512) is bad.",
                Query(f"{me}requests_in_flight{mine}", "{{instance}}"),
                unit="short",
                steps=((None, "transparent"), (512, RED)),
            ),
            graph(
                "Rejections",
                "Requests turned away a second, by cause. max_requests: too many at once; draining: while it stops.",
                Query(f"sum by (cause) ({rate(me + 'requests_rejected_total')})", "{{cause}}"),
                unit="reqps",
            ),
            graph(
                "Secrets that could not be read",
                "Failures to read a secret file again, in an hour. Above 0 is bad: the last good value is in use.",
                Query(f"increase({me}secret_read_failures_total{by_target}[1h]) > 0", "{{target}}"),
                unit="short",
            ),
        ),
    )
    heat = panel(
        "heatmap",
        "Probe durations",
        "How many probes took how long. A second band at the top is probes that run into their deadline.",
        [
            ranged(
                Query(f"sum by (le) (increase({me}probe_duration_seconds_bucket{mine}[$__rate_interval]))", "{{le}}"),
                "heatmap",
            )
        ],
        field("short", custom={"scaleDistribution": {"type": "linear"}}),
        options={
            "calculate": False,
            "cellGap": 1,
            "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5, "reverse": False},
            "yAxis": {"axisPlacement": "left", "unit": "s"},
            "rowsFrame": {"layout": "auto"},
            "legend": {"show": True},
            "tooltip": {"mode": "single", "yHistogram": False, "showColorScale": False},
            "filterValues": {"le": 1e-9},
        },
    )
    buckets = f"sum by (le, collector) ({rate(me + 'probe_duration_seconds_bucket')})"
    total = f"sum by (collector) ({rate(me + 'probe_duration_seconds_sum')})"
    number = f"sum by (collector) ({rate(me + 'probe_duration_seconds_count')})"
    failures = f"sum by (collector, target, check) ({rate(me + 'check_failures_total', by_target)})"
    verdicts = f"sum by (collector, target, check) ({rate(me + 'checks_total', by_target)})"
    probes = (
        row(
            7,
            heat,
            graph(
                "Probe duration by kind",
                "Mean and 95th percentile. The percentile near the scrape timeout is bad.",
                Query(f"{total} / {number}", "{{collector}} mean"),
                Query(f"histogram_quantile(0.95, {buckets})", "{{collector}} 95 %"),
                unit="s",
            ),
            graph(
                "Checks made",
                "Verdicts a second, by kind. 0 is bad: nobody scrapes. Twice as many as before: one more Prometheus.",
                Query(f"sum by (collector) ({rate(me + 'checks_total')})", "{{collector}}"),
                unit="ops",
            ),
            graph(
                "Checks failing",
                "Share of the verdicts that were failures, for each check that had any. Counts what happened between "
                "scrapes, too.",
                Query(f"{failures} / {verdicts} > 0", "{{target}} {{check}}"),
                unit="percentunit",
                kind="${__field.labels.collector}",
            ),
        ),
    )
    process = (
        row(
            7,
            graph(
                "CPU",
                "Cores used. Near 1 is bad: Python uses one, and probes begin to look slow.",
                Query(rate("process_cpu_seconds_total"), "{{instance}}"),
                unit="short",
                steps=((None, "transparent"), (0.8, RED)),
            ),
            graph(
                "Memory",
                "Resident memory. A line that only climbs is bad.",
                Query(f"process_resident_memory_bytes{mine}", "{{instance}}"),
                unit="bytes",
            ),
            graph(
                "Garbage collections",
                "Collections a second by generation, and objects that could not be collected, which is bad.",
                Query(f"sum by (generation) ({rate('python_gc_collections_total')})", "generation {{generation}}"),
                Query(f"sum({rate('python_gc_objects_uncollectable_total')})", "uncollectable"),
                unit="ops",
            ),
            graph(
                "Open files",
                "Open file descriptors, and how many there may be (dashed). A line that only climbs is bad.",
                Query(f"process_open_fds{mine}", "{{instance}}"),
                Query(f"process_max_fds{mine}", "{{instance}} limit"),
                unit="short",
                dashed="/ limit$/",
            ),
        ),
    )
    return dashboard(
        "exporter",
        "Exporter",
        "The exporter itself: whether it is well, and whether it is asked as it should be.",
        [
            variable("job", f"label_values({me}build_info, job)", "Scrape jobs of the exporter's own metrics."),
            variable("instance", f'label_values({me}build_info{{job=~"$job"}}, instance)', "Exporters.", ".+"),
            variable(
                "target",
                f'label_values({me}checks_total{{job=~"$job"}}, target)',
                "Targets, by the name they have in the exporter's config.",
                ".+",
            ),
        ],
        [EXPORTER_STARTS],
        [
            numbers,
            about,
            Section("Requests", requests),
            Section("Probes", probes),
            Section("Process", process),
        ],
    )


# --- files ----------------------------------------------------------------------------------------------------------

DASHBOARDS = {
    "overview": overview,
    "pryv": pryv,
    "bundles": bundles,
    "system_health": system_health,
    "healthchecks": healthchecks,
    "exporter": exporter,
}


def rendered() -> dict[str, str]:
    """Return the text of every file, by its name."""
    return {f"{name}.json": json.dumps(make(), indent=2) + "\n" for name, make in DASHBOARDS.items()}


def main() -> None:
    """Write the files."""
    for name, content in rendered().items():
        (Path(__file__).parent / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
