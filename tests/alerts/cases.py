"""What each alert must do: the fault that raises it, the neighbours that must not, and whole states of a target.

Series are written without the labels of the scrape; `target="t"` is added, and `collector` where a metric has it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from tests.alerts.rules import EVALUATION, SCRAPE, Expected, Labels, Rule, Series, UnitTest, alert, rules

Style = Literal["metrics", "probe", "replicas", "as_written"]
STYLES: tuple[Style, ...] = ("metrics", "probe", "replicas")
"""/metrics; /probe by static targets or http-sd, with a static label; /metrics of two exporters, in pods."""
STATIC: Mapping[Style, Labels] = {
    "metrics": {"job": "health-exporter"},
    "probe": {"job": "health-probe", "team": "core"},
    "replicas": {"job": "health-exporter"},
    "as_written": {},
}
SCRAPED: Mapping[Style, tuple[Labels, ...]] = {
    "metrics": ({"instance": "e1:10054"},),
    "probe": ({"instance": "t"},),
    "replicas": tuple({"instance": f"e{n}:10054", "pod": f"p{n}", "exporter": f"x{n}"} for n in (1, 2)),
    "as_written": ({},),
}
DAY = 86400


def scraped(series: Series, style: Style, collector: str = "pryv") -> Series:
    """Return the series as they come from a scrape of this style."""
    found: Series = {}
    for name, values in series.items():
        metric, _, inner = name.partition("{")
        labels = dict(re.findall(r'(\w+)="([^"]*)"', inner))
        if style != "as_written":
            labels = {"target": "t"} | ({"collector": collector} if metric.startswith("probe_") else {}) | labels
        for added in SCRAPED[style]:
            every = labels | STATIC[style] | added
            text = ",".join(f'{label}="{value}"' for label, value in every.items())
            found[f"{metric}{{{text}}}"] = values
    return found


def for_scrapes(values: str, scrapes: int, then: str = "stale") -> str:
    """Return a constant for so many scrapes, and what comes then."""
    return f"{values}x{scrapes - 1} {then}" if " " not in values and "x" not in values else values


def for_ever(values: str, scrapes: int) -> str:
    return values if " " in values or "x" in values else f"{values}x{scrapes}"


def checks(target: str = "", /, **verdicts: str) -> Series:
    """Return the series of a probe: each check with its reason, or "" for one that passes."""
    of = f'target="{target}",' if target else ""
    found = {f"probe_success{{{of}}}": str(int(not any(verdicts.values())))}
    for check, reason in verdicts.items():
        found[f'probe_check_success{{{of}check="{check}"}}'] = str(int(not reason))
        found[f'probe_check_duration_seconds{{{of}check="{check}"}}'] = "0.1"
        if reason:
            found[f'probe_check_failure_reason{{{of}check="{check}",reason="{reason}"}}'] = "1"
    return found


def remembered(series: Series, check: str) -> Series:
    """Return the series of a probe in which this check answered from memory: nothing was measured."""
    return {name: values for name, values in series.items() if f'duration_seconds{{check="{check}"' not in name}


def shown(series: Series) -> str:
    """Return the reasons as a description lists them."""
    found = re.findall(r'^probe_check_failure_reason{.*?check="(\w+)",reason="(\w+)"', "\n".join(series), re.MULTILINE)
    return "".join(f"{check}={reason} " for check, reason in sorted(set(found)))


@dataclass(frozen=True, slots=True)
class Case:
    """One alert: the series of its fault, and those of states that look like it and are none.

    `after` is when it must fire, if that is not its `for` (a window has to fill). `ends` is how long it stays without
    data, if that is not its `keep_firing_for`. The value of a `moving` one is looked at once. `exact`: all labels but
    `job` of an alert that is not about one target.
    """

    key: tuple[str, ...]
    fault: Series
    healthy: tuple[Series, ...] = ()
    labels: Labels = field(default_factory=dict)
    value: str = ""
    description: str = ""
    collector: str = "pryv"
    styles: tuple[Style, ...] = STYLES
    after: int | None = None
    ends: int | None = None
    until_ends: bool = True
    moving: bool = False
    exact: Labels | None = None

    @property
    def rule(self) -> Rule:
        return alert(*self.key)

    @property
    def at(self) -> int:
        """When it fires, in seconds from the first sample."""
        return self.rule.seconds("for") if self.after is None else self.after

    def expected(self, style: Style) -> Expected:
        if self.exact is not None:
            return Expected(
                self.rule, self.exact | {"job": STATIC[style]["job"]}, self.value, description=self.description
            )
        labels = {} if style == "as_written" else {"target": "t"}
        if self.probes() and style != "as_written":
            labels["collector"] = self.collector
        return Expected(
            self.rule, labels | STATIC[style] | self.labels, self.value, shown(self.fault), self.description
        )

    def probes(self) -> bool:
        """Tell whether the alert's labels are those of a probe metric, with `collector`."""
        return bool(re.search(r"probe_(check_|success|duration|ssl)", self.rule.expr))

    def unit_tests(self) -> Iterator[UnitTest]:
        """Yield the tests: fires in time in every style, survives gaps, ends, and stays silent when it must."""
        name, at = (self.rule.name,), self.at
        for style in self.styles:
            one = (self.expected(style),)
            long = {key: for_ever(values, at // SCRAPE + 3) for key, values in self.fault.items()}
            early = ((at - EVALUATION, name, ()),) if at else ()
            later = () if self.moving else ((at + 2 * SCRAPE, name, one),)
            expect = (*early, (at, name, one), *later)
            yield UnitTest(f"{self.key} fires, {style}", scraped(long, style, self.collector), expect)
        style = self.styles[0]
        one = (self.expected(style),)
        late = (at + 120) // EVALUATION * EVALUATION
        for number, series in enumerate(({}, *self.healthy)):
            steady = {key: for_ever(values, late // SCRAPE + 20) for key, values in series.items()}
            expect = tuple((when, name, ()) for when in (at, at + 60, late))
            for one_style in {self.styles[0], self.styles[-1]}:
                yield UnitTest(
                    f"{self.key} healthy {number}, {one_style}", scraped(steady, one_style, self.collector), expect
                )
        if not self.until_ends:
            return
        scrapes = -(-at // SCRAPE) + 2
        gone = scrapes * SCRAPE
        kept = self.rule.seconds("keep_firing_for") if self.ends is None else self.ends
        ending = {key: for_scrapes(values, scrapes) for key, values in self.fault.items()}
        expect = (
            *(((gone + kept - EVALUATION, name, one),)),
            (gone + kept, name, ()),
            (gone + kept + 60, name, ()),
        )
        yield UnitTest(f"{self.key} ends", scraped(ending, style, self.collector), expect)
        if kept:
            # Flapping: it comes back within the time it is kept, and does not resolve in between.
            back = {
                key: for_scrapes(values, scrapes, f"stale {values}x{kept // SCRAPE + 5}")
                for key, values in self.fault.items()
            }
            expect = tuple((when, name, one) for when in range(gone, gone + kept + 2 * SCRAPE, SCRAPE))
            yield UnitTest(f"{self.key} flaps", scraped(back, style, self.collector), expect)
        if at >= SCRAPE:
            # No data any more just before its time.
            cut = {key: for_scrapes(values, at // SCRAPE) for key, values in self.fault.items()}
            expect = ((at, name, ()), (at + 60, name, ()), (at + 600, name, ()))
            if not re.search(r"over_time|increase|changes", self.rule.expr):
                yield UnitTest(f"{self.key} too short", scraped(cut, style, self.collector), expect)


SERVICE = ("dns", "connect", "tls", "timeout", "disconnect", "http_status", "decode", "schema", "unhealthy")
CONFIG = ("not_found", "wrong_target", "redirect", "too_large")
OWN = ("auth", "internal")

PRYV = ("registration", "platform", "storage", "hfs", "series", "service_info", "access")


def pryv(**verdicts: str) -> Series:
    """Return a probe of a single-core Pryv, whose checks pass but for those named."""
    return checks(**(dict.fromkeys(PRYV, "") | verdicts))


def multi(**verdicts: str) -> Series:
    """Return the same of a core of several."""
    return checks(**(dict.fromkeys(("dns", *PRYV), "") | verdicts))


def all_of(names: tuple[str, ...], reason: str, **but: str) -> Series:
    return checks(**(dict.fromkeys(names, reason) | but))


HOST = ("health", "bundles")
MEDIA = ("health", "detailed", "consistency")
CRON = ("status", "checks")


def service_alert(key: tuple[str, ...], check: str, *, misc: tuple[Series, ...] = ()) -> Case:
    """Return the case of an alert on one check of Pryv: every reason of the service, none of the others."""
    own = tuple(pryv(**{check: reason}) for reason in (*CONFIG, *OWN, ""))
    others = tuple(pryv(**{other: "http_status"}) for other in PRYV if other != check)
    return Case(key, pryv(**{check: "http_status"}), (*own, *others, *misc))


EXPIRY = "probe_ssl_earliest_cert_expiry"
ALL_UP = pryv()
NO_PROBE = {"health_exporter_checks_total{collector='pryv'}": "0+1x40"}


def many(failing: int, well: int, reason: str = "timeout") -> Series:
    """Return so many targets that fail, and so many that pass."""
    found: Series = {}
    for number in range(failing + well):
        verdict = reason if number < failing else ""
        passing = dict.fromkeys(("dns", "hfs", "access", "consistency", "flips"), "")
        found |= checks(f"t{number}", storage=verdict, platform=verdict, **passing)
    return found


def many_pryv(number: int, storage: str = "", platform: str = "connect", forgets: str = "storage") -> Series:
    """Return so many dead cores, one check of which passed from memory."""
    found: Series = {}
    for one in range(number):
        found |= checks(f"t{one}", storage=storage, platform=platform, registration="connect")
    return {
        name: values
        for name, values in found.items()
        if 'duration_seconds{target="t' not in name or forgets not in name
    }


def renamed(series: Series) -> Series:
    """Return the series of other targets."""
    return {name.replace('target="t', 'target="u'): values for name, values in series.items()}


def up(job: str, instance: str, values: str, **labels: str) -> Series:
    """Return `up` of a scrape."""
    text = "".join(f',{label}="{value}"' for label, value in labels.items())
    return {f'up{{job="{job}",instance="{instance}"{text}}}': values}


def counter(target: str) -> Series:
    labels = f'job="health-exporter",instance="e1:10054",collector="pryv",target="{target}",check="storage"'
    return {f"health_exporter_checks_total{{{labels}}}": "5"}


def watched(target: str, instance: str = "e1:10054") -> Series:
    return {f'probe_success{{job="health-exporter",instance="{instance}",collector="pryv",target="{target}"}}': "1"}


TARGET_CASES = (
    Case(
        ("HealthTargetDown", "critical"),
        all_of(PRYV, "connect"),
        (
            pryv(),
            *(all_of(PRYV, "connect", **{check: ""}) for check in ("registration", "platform", "storage")),
            # Only storage is remembered for long enough to matter.
            remembered(all_of(PRYV, "connect", platform=""), "platform"),
            all_of(PRYV, "auth"),
            all_of(PRYV, "internal"),
            all_of(PRYV, "auth", registration="internal"),
            # Only checks that do not count say why: no verdict of those that do.
            {'probe_check_success{check="storage"}': "0"}
            | {'probe_check_failure_reason{check="access",reason="timeout"}': "1"}
            | {'probe_check_failure_reason{check="dns",reason="timeout"}': "1"}
            | {'probe_check_failure_reason{check="hfs",reason="timeout"}': "1"}
            | {'probe_check_failure_reason{check="consistency",reason="timeout"}': "1"}
            | {'probe_check_failure_reason{check="flips",reason="timeout"}': "1"},
            all_of(PRYV, "tls") | {EXPIRY: "-10"},
        ),
    ),
    *(
        # What a dead service still passes does not count, whatever the reason of the others.
        Case(("HealthTargetDown", "critical"), fault, collector=kind, until_ends=False, styles=("metrics",))
        for kind, fault in (
            ("pryv", all_of((*PRYV, "dns"), "connect", dns="", access="", hfs="", series="")),
            ("pryv", remembered(all_of(PRYV, "connect", storage=""), "storage")),
            ("pryv", remembered(all_of(PRYV, "timeout", storage="auth"), "storage")),
            ("system_health", all_of(MEDIA, "timeout", consistency="")),
            ("healthchecks", all_of((*CRON, "flips"), "dns", flips="")),
            ("pryv", all_of(PRYV, "auth", registration="timeout")),
            ("pryv", all_of(PRYV, "internal", registration="timeout")),
            ("bundles", all_of(HOST, "wrong_target")),
            ("bundles", all_of(HOST, "redirect")),
            ("bundles", all_of(HOST, "tls") | {EXPIRY: "99999999999"}),
            ("bundles", all_of(HOST, "connect") | {EXPIRY: "-10"}),
            ("bundles", all_of(HOST, "tls")),
        )
    ),
    Case(
        ("HealthManyTargetsDown", "critical"),
        many(5, 5),
        (
            many(4, 0),
            many(5, 6),
            many(5, 0, "http_status"),
            many(5, 0, "auth"),
            many(0, 10),
            many(5, 4) | renamed(many(3, 0, "http_status")),
            many(4, 0) | renamed(many(4, 0, "http_status")),
            many_pryv(6, forgets="nothing"),
            many_pryv(6, storage="connect", platform="", forgets="platform"),
            many(5, 3) | renamed(many_pryv(3, storage="connect", platform="", forgets="platform")),
            many(4, 0) | renamed(many_pryv(4, storage="connect", platform="", forgets="platform")),
        ),
        exact={},
        value="50%",
    ),
    Case(
        ("HealthManyTargetsDown", "critical"),
        many(2, 0) | renamed(many(4, 2, "dns")),
        value="75%",
        exact={},
        styles=("metrics",),
        until_ends=False,
    ),
    Case(("HealthManyTargetsDown", "critical"), many_pryv(6), value="100%", exact={}, until_ends=False),
    *(
        Case(
            ("HealthManyTargetsDown", "critical"),
            many(6, 0, why),
            value="100%",
            exact={},
            styles=("metrics",),
            until_ends=False,
        )
        for why in ("dns", "connect", "tls", "disconnect")
    ),
    Case(
        ("HealthTargetNotProbed", "warning"),
        up("health-probe", "t", "0", team="core", pod="p") | up("node", "t", "1"),
        (
            up("health-probe", "t", "1") | counter("t"),
            up("health-probe", "t", "0", exporter="x1") | up("health-probe", "t", "1", exporter="x2"),
            counter("t") | watched("t"),
            counter("t") | watched("t", "e2:10054"),
            counter("module:bundle_host"),
            up("node", "t", "0"),
        ),
        labels={"job": "health-probe", "target": "t", "team": "core"},
        styles=("as_written",),
    ),
    Case(
        ("HealthTargetNotProbed", "warning"),
        counter("t") | up("node", "t", "1") | up("health-probe", "u", "1"),
        labels={"collector": "pryv", "target": "t"},
        styles=("as_written",),
    ),
    Case(
        ("HealthTargetNotProbed", "warning"),
        up("health-probe", "t", "0", exporter="x1") | counter("t"),
        labels={"job": "health-probe", "target": "t", "exporter": "x1"},
        styles=("as_written",),
    ),
    Case(
        ("HealthTargetAuthFailing", "warning"),
        pryv(storage="auth", access="auth"),
        (pryv(storage="http_status"), all_of((*CRON, "integrations"), "", integrations="auth"), pryv()),
    ),
    Case(
        ("HealthTargetMisconfigured", "warning"),
        pryv(series="wrong_target"),
        (
            *(pryv(series=reason) for reason in (*SERVICE, *OWN)),
            multi(dns="not_found"),
            pryv(storage="not_found", registration="not_found", access="not_found"),
        ),
    ),
    *(
        Case(("HealthTargetMisconfigured", "warning"), pryv(**verdict), until_ends=False, styles=("metrics",))
        for verdict in (
            {"access": "not_found"},
            {"series": "redirect"},
            {"platform": "too_large"},
            {"storage": "wrong_target"},
        )
    ),
    Case(
        ("HealthCheckFailing", "warning"),
        pryv(access="timeout"),
        (
            *(pryv(access=reason) for reason in (*CONFIG, *OWN)),
            *(pryv(**{check: "timeout"}) for check in ("storage", "platform", "registration", "hfs", "series")),
            multi(dns="timeout"),
            all_of(CRON, "", checks="timeout"),
        ),
        labels={"check": "access"},
    ),
    *(
        Case(
            ("HealthCheckFailing", "warning"),
            pryv(service_info=reason),
            (),
            {"check": "service_info"},
            until_ends=False,
            styles=("metrics",),
        )
        for reason in SERVICE
    ),
    Case(
        ("HealthProbeSlow", "warning"),
        {"probe_duration_seconds": "8.1", "probe_timeout_seconds": "10", "probe_success": "1"},
        (
            {"probe_duration_seconds": "8", "probe_timeout_seconds": "10", "probe_success": "1"},
            {"probe_duration_seconds": "9.9", "probe_timeout_seconds": "10", "probe_success": "0"},
            {"probe_duration_seconds": "1x5 9.9 1x40", "probe_timeout_seconds": "10", "probe_success": "1"},
        ),
        value="81%",
    ),
    Case(
        ("HealthCertificateExpiry", "critical", "true"),
        all_of(HOST, "tls") | {EXPIRY: "-60"},
        (
            all_of(HOST, "tls") | {EXPIRY: "99999"},
            all_of(HOST, "connect") | {EXPIRY: "-60"},
            all_of(HOST, "") | {EXPIRY: "-60"},
        ),
        value="2m 0s",
        moving=True,
        until_ends=False,
    ),
    Case(
        ("HealthCertificateExpiry", "critical"),
        all_of(HOST, "") | {EXPIRY: str(2 * DAY + 720)},
        (
            all_of(HOST, "tls") | {EXPIRY: str(2 * DAY)},
            all_of(HOST, "") | {EXPIRY: str(3 * DAY + 7200)},
        ),
        value="2d 0h 2m 0s",
        moving=True,
        ends=15 * 60,
        until_ends=False,
    ),
    Case(
        ("HealthCertificateExpiry", "critical"),
        all_of(HOST, "connect") | {EXPIRY: str(600)},
        value="0s",
        moving=True,
        styles=("metrics",),
        until_ends=False,
    ),
    Case(
        ("HealthCertificateExpiry", "warning"),
        {EXPIRY: str(4 * DAY + 3600)},
        value="4d 0h 0m 0s",
        moving=True,
        until_ends=False,
    ),
    Case(
        ("HealthCertificateExpiry", "warning"),
        all_of(HOST, "") | {EXPIRY: str(13 * DAY + 3720)},
        (
            all_of(HOST, "") | {EXPIRY: str(14 * DAY + 7200)},
            all_of(HOST, "") | {EXPIRY: str(3 * DAY - 60)},
        ),
        value="13d 0h 2m 0s",
        moving=True,
        until_ends=False,
    ),
    *(
        Case(("HealthUnknownState", "warning"), {series: "1"}, ({series: "0"}, {known: "1"}), labels)
        for series, known, labels in (
            (
                'bundle_instances{bundle="weather",state="unknown"}',
                'bundle_instances{bundle="weather",state="dead"}',
                {"bundle": "weather"},
            ),
            ('system_health_status{status="unknown"}', 'system_health_status{status="error"}', {}),
            (
                'system_health_component_status{component="redis",status="unknown"}',
                'system_health_component_status{component="redis",status="error"}',
                {"component": "redis"},
            ),
            ('healthchecks_checks{status="unknown"}', 'healthchecks_checks{status="down"}', {}),
        )
    ),
    *(
        Case(
            ("HealthServiceRestarting", "warning"),
            {metric: "1000x9 1600x9 2200x9 2800x30"},
            ({metric: "1000x9 1600x9 2200x80"}, {metric: "1000x9 1600x39 2200x39 2800x20"}),
            value="3",
            after=30 * 60,
            until_ends=False,
        )
        for metric in ("system_health_start_time_seconds", "bundle_host_start_time_seconds")
    ),
)

PRYV_CASES = (
    service_alert(
        ("HealthPryvPlatformDown", "critical"),
        "platform",
        misc=(pryv(platform="http_status", storage="http_status"), pryv(platform="timeout", storage="timeout")),
    ),
    *(
        Case(("HealthPryvPlatformDown", "critical"), fault, until_ends=False, styles=("metrics",))
        for fault in (
            multi(platform="http_status", storage="http_status"),
            *(pryv(platform="timeout", storage=reason) for reason in (*CONFIG, *OWN)),
        )
    ),
    service_alert(("HealthPryvStorageDown", "critical"), "storage"),
    Case(
        ("HealthPryvDnsFailing", "critical"),
        multi(dns="unhealthy"),
        (
            multi(),
            multi(dns="internal"),
            multi(dns="dns", storage="not_found"),
            multi(dns="unhealthy", storage="wrong_target"),
            pryv(storage="dns"),
        ),
    ),
    Case(("HealthPryvDnsFailing", "critical"), multi(dns="dns", storage="http_status"), until_ends=False),
    Case(("HealthPryvDnsFailing", "critical"), multi(dns="dns", access="not_found"), until_ends=False),
    service_alert(("HealthPryvRegistrationDown", "critical"), "registration"),
    service_alert(("HealthPryvHfsDown", "critical"), "hfs"),
    service_alert(
        ("HealthPryvSeriesStuck", "critical"),
        "series",
        misc=tuple(pryv(series="timeout", **{check: "timeout"}) for check in ("hfs", "storage", "platform")),
    ),
    Case(("HealthPryvSeriesStuck", "critical"), pryv(series="timeout", access="timeout"), until_ends=False),
    Case(
        ("HealthPryvAccountMissing", "critical"),
        pryv(storage="not_found", registration="not_found"),
        (pryv(registration="not_found", access="not_found"), pryv(storage="wrong_target"), pryv(storage="timeout")),
    ),
    Case(
        ("HealthPryvTokenExpiry", "warning"),
        {"pryv_token_expiry_timestamp_seconds": str(13 * DAY + 960)},
        ({"pryv_token_expiry_timestamp_seconds": str(14 * DAY + 7200)}, pryv()),
        value="13d 0h 1m 0s",
        moving=True,
        until_ends=False,
    ),
    Case(
        ("HealthPryvClockSkew", "warning"),
        {"pryv_clock_skew_seconds": "6"},
        ({"pryv_clock_skew_seconds": "5"}, {"pryv_clock_skew_seconds": "-0.8"}),
        value="6s",
    ),
    Case(("HealthPryvClockSkew", "warning"), {"pryv_clock_skew_seconds": "-6"}, value="6s", until_ends=False),
    Case(
        ("HealthPryvNoHosting", "warning"),
        {'pryv_hosting_available{hosting="a"}': "0", 'pryv_hosting_available{hosting="b"}': "0"},
        ({'pryv_hosting_available{hosting="a"}': "0", 'pryv_hosting_available{hosting="b"}': "1"},),
    ),
)


def bundle(state: str, *, restarts: str = "", total: str = "", expected: bool = False, is_up: str = "") -> Series:
    """Return the series of one bundle with one instance."""
    states = ["starting", "running", "crashed", "dead", "stopped", "healthy", "restarting", "cooldown", "unknown"]
    found = {f'bundle_instances{{bundle="weather",state="{one}"}}': str(int(one == state)) for one in states}
    found['bundle_up{bundle="weather"}'] = is_up or str(int(state in ("running", "healthy")))
    if restarts:
        found['bundle_consecutive_restarts{bundle="weather"}'] = restarts
    if total:
        found['bundle_restarts_total{bundle="weather"}'] = total
    if expected:
        found['bundle_expected_missing{bundle="weather"}'] = "0"
    return found


WEATHER = {"bundle": "weather"}
CYCLE = "0 1 1 2 2 3 4 5 5 5 5 5 5 5 5 "
"""Restarts a minute in one cycle of a crash loop that reports them: five in 150 s, then 300 s of cooldown."""
LOOPS = " ".join(str(5 * cycle + int(step)) for cycle in range(4) for step in CYCLE.split())
ONE_CYCLE_THEN_WELL = f"{CYCLE}5x60"

BUNDLE_CASES = (
    *(
        case
        for severity, expected in (("critical", True), ("warning", False))
        for case in (
            Case(
                ("HealthBundleCrashLooping", severity),
                bundle("healthy", total=LOOPS, expected=expected),
                (
                    bundle("healthy", total=LOOPS, expected=not expected),
                    bundle("healthy", total="0 1x20 2x60", expected=expected),
                    bundle("healthy", total="0 1 2 3x60", expected=expected),
                    bundle("restarting", total="0 0x60", expected=expected),
                ),
                WEATHER,
                after=360,
                until_ends=False,
                collector="bundles",
            ),
            Case(
                ("HealthBundleCrashLooping", severity),
                bundle("cooldown", expected=expected),
                (bundle("dead", expected=expected), bundle("cooldown", expected=not expected)),
                WEATHER,
                collector="bundles",
                ends=900,
                until_ends=False,
            ),
            Case(
                ("HealthBundleDown", severity),
                bundle("restarting", restarts="0", expected=expected),
                (
                    bundle("healthy", expected=expected),
                    bundle("running", expected=expected),
                    bundle("restarting", restarts="0", expected=not expected),
                    bundle("cooldown", restarts="0", expected=expected),
                ),
                WEATHER,
                collector="bundles",
            ),
        )
    ),
    *(
        Case(
            ("HealthBundleDown", "critical"), bundle(state, restarts="0", expected=True), (), WEATHER, until_ends=False
        )
        for state in ("dead", "stopped", "unknown", "crashed", "starting")
    ),
    *(
        Case(
            ("HealthBundleDown", "warning"),
            bundle(state, restarts="5"),
            (bundle(state, restarts="0"), bundle(state)),
            WEATHER,
            until_ends=False,
        )
        for state in ("dead", "stopped")
    ),
    Case(
        ("HealthBundleMissing", "critical"),
        {'bundle_expected_missing{bundle="weather"}': "1"},
        ({'bundle_expected_missing{bundle="weather"}': "0"},),
        WEATHER,
    ),
    Case(
        ("HealthBundleRestartsOften", "warning"),
        {'bundle_restarts_total{bundle="weather"}': "0x39 1x39 2x39 3x39 4x39 5x39 6x100"},
        (
            {'bundle_restarts_total{bundle="weather"}': "0x39 1x39 2x39 3x39 4x39 5x300"},
            bundle("healthy", total="0 1 2 3 4 5x100 6x100 7x100"),
            bundle("healthy", total=ONE_CYCLE_THEN_WELL.replace("5x60", "5 6 6 7 7 8x200")),
        ),
        WEATHER,
        value="6",
        moving=True,
        after=240 * 60,
        until_ends=False,
    ),
)

SYSTEM_CASES = (
    *(
        Case(
            ("HealthSystemComponentDown", severity),
            {f'system_health_component_up{{component="{component}"}}': "0"},
            (
                {f'system_health_component_up{{component="{component}"}}': "1"},
                {f'system_health_component_up{{component="{other}"}}': "0"},
            ),
            {"component": component},
        )
        for severity, component, other in (
            ("critical", "postgres", "qdrant"),
            ("critical", "redis", "mongodb"),
            ("warning", "qdrant", "redis"),
            ("warning", "mongodb", "postgres"),
        )
    ),
    *(
        Case(
            ("HealthSystemDegraded", "warning"),
            {f'system_health_status{{status="{status}"}}': "1", 'system_health_component_up{component="redis"}': "1"},
            (
                {f'system_health_status{{status="{status}"}}': "0", 'system_health_status{status="ok"}': "1"},
                {'system_health_status{status="unknown"}': "1"},
                {
                    f'system_health_status{{status="{status}"}}': "1",
                    'system_health_component_up{component="redis"}': "0",
                },
            ),
        )
        for status in ("degraded", "error")
    ),
    *(
        Case(("HealthSystemPipelineNotReady", "warning"), {metric: "0"}, ({metric: "1"},))
        for metric in (
            "system_health_pipeline_scripts_ready",
            "system_health_pipeline_models_ready",
            "system_health_pipeline_ffmpeg_ready",
            'system_health_pipeline_processor_ready{processor="asr"}',
        )
    ),
    Case(
        ("HealthSystemPipelineNotReady", "warning"),
        {
            'system_health_pipeline_processor_ready{processor="asr"}': "0",
            'system_health_pipeline_processor_ready{processor="ocr"}': "1",
        },
        until_ends=False,
    ),
    Case(
        ("HealthSystemScriptsModified", "info"),
        {"system_health_pipeline_scripts_integrity_ok": "0"},
        ({"system_health_pipeline_scripts_integrity_ok": "1"},),
    ),
    Case(
        ("HealthSystemSchemaOutdated", "warning"),
        {"system_health_schema_ok": "0"},
        ({"system_health_schema_ok": "1"},),
    ),
    *(
        Case(("HealthSystemIdentitiesOutOfSync", "warning"), {metric: "0"}, ({metric: "1"},))
        for metric in ("system_health_identities_synced", "system_health_identities_index_ok")
    ),
    *(
        Case(
            ("HealthSystemIntegrationUnreachable", "warning"),
            {f'{metric}{{integration="tmdb"}}': "0", 'system_health_integration_enabled{integration="tmdb"}': "1"},
            (
                {f'{metric}{{integration="tmdb"}}': "0", 'system_health_integration_enabled{integration="tmdb"}': "0"},
                {f'{metric}{{integration="tmdb"}}': "1", 'system_health_integration_enabled{integration="tmdb"}': "1"},
                {f'{metric}{{integration="tmdb"}}': "0", 'system_health_integration_enabled{integration="omdb"}': "1"},
            ),
            {"integration": "tmdb"},
        )
        for metric in ("system_health_integration_api_reachable", "system_health_integration_api_key_configured")
    ),
    Case(
        ("HealthSystemInconsistent", "warning"),
        {
            'system_health_consistency_anomalies{anomaly="orphaned",level="warn"}': "2",
            'system_health_consistency_anomalies{anomaly="stale",level="error"}': "1",
            'system_health_consistency_anomalies{anomaly="unregistered_with_uuid",level="info"}': "7",
        },
        (
            {'system_health_consistency_anomalies{anomaly="unregistered_with_uuid",level="info"}': "7"},
            {'system_health_consistency_anomalies{anomaly="orphaned",level="warn"}': "0"},
        ),
        value="3",
    ),
)


def project(**states: int) -> Series:
    """Return how many checks of a project are in each state."""
    known = ("new", "up", "grace", "down", "paused", "unknown")
    return {f'healthchecks_checks{{status="{state}"}}': str(states.get(state, 0)) for state in known}


KEY = {"unique_key": "abc"}
INFO = 'healthchecks_check_info{unique_key="abc",name="Backup",slug="backup"}'
JOB_DOWN = {'healthchecks_check_status{unique_key="abc",status="down"}': "1"}
JOB_TEXT = "t: Backup (backup) missed its time and its grace, or reported a failure."

CRON_CASES = (
    Case(
        ("HealthCronAlertingStuck", "critical"),
        {"healthchecks_alerting_lag_seconds": "61"},
        ({"healthchecks_alerting_lag_seconds": "60"}, {"healthchecks_alerting_lag_seconds": "0"}),
        value="1m 1s",
    ),
    Case(
        ("HealthCronProjectUnreadable", "critical"),
        all_of(CRON, "", checks="disconnect"),
        (
            *(all_of(CRON, "", checks=reason) for reason in (*CONFIG, *OWN, "")),
            all_of(CRON, "", status="timeout"),
        ),
        collector="healthchecks",
    ),
    Case(
        ("HealthCronCheckDown", "warning"),
        JOB_DOWN | {INFO: "1"},
        (
            {'healthchecks_check_status{unique_key="abc",status="down"}': "0"},
            *(
                {f'healthchecks_check_status{{unique_key="abc",status="{status}"}}': "1", INFO: "1"}
                for status in ("new", "up", "grace", "paused", "unknown")
            ),
        ),
        KEY,
        description=JOB_TEXT,
        until_ends=False,
    ),
    Case(
        ("HealthCronCheckDown", "warning"),
        JOB_DOWN,
        (),
        KEY,
        description="t: abc missed its time and its grace, or reported a failure.",
    ),
    # A rename while it waits, and two exporters that read the list before and after it: one alert, on time.
    Case(
        ("HealthCronCheckDown", "warning"),
        JOB_DOWN | {INFO.replace("Backup", "Save"): "1x2 stale", INFO: "_x3 1x20"},
        (),
        KEY,
        description=JOB_TEXT,
        until_ends=False,
    ),
    Case(
        ("HealthCronManyChecksDown", "critical"),
        project(down=5, up=2, grace=2, paused=50, new=50),
        (
            project(down=4),
            project(down=5, up=5),
            project(down=5, up=3, grace=2),
            project(down=20, up=60),
            project(up=60),
            project(new=20, paused=10),
        ),
        value="5",
    ),
    Case(
        ("HealthCronNoChecks", "warning"),
        project(),
        tuple(project(**{state: 1}) for state in ("new", "up", "grace", "down", "paused")),
    ),
    Case(
        ("HealthCronNoIntegrations", "warning"),
        all_of((*CRON, "integrations"), ""),
        (
            all_of((*CRON, "integrations"), "") | {'healthchecks_integrations{kind="email"}': "1"},
            all_of((*CRON, "integrations"), "", integrations="auth"),
            all_of(CRON, ""),
        ),
        collector="healthchecks",
    ),
    Case(
        ("HealthCronNoIntegrations", "warning"),
        all_of((*CRON, "integrations"), "") | {'healthchecks_integrations{kind="email"}': "0"},
        collector="healthchecks",
        until_ends=False,
    ),
)

REPLICA = {"instance": "e1:10054"}
EXPORTER = {"job": "health-exporter", **REPLICA}
OF_EXPORTER = ",".join(f'{label}="{value}"' for label, value in EXPORTER.items())
RELOADED = f"health_exporter_config_last_reload_successful{{{OF_EXPORTER}}}"
REJECTED = f'health_exporter_requests_rejected_total{{{OF_EXPORTER},cause="max_requests"}}'
BORN = f"process_start_time_seconds{{{OF_EXPORTER}}}"

EXPORTER_CASES = (
    Case(
        ("HealthExporterDown", "critical"),
        up("health-exporter", "e1:10054", "0"),
        (up("health-exporter", "e1:10054", "1"), up("health-probe", "t", "0"), up("node", "e1:10054", "0")),
        REPLICA,
        description="e1:10054 cannot be scraped. Unwatched: every target it probes.",
        styles=("as_written",),
    ),
    Case(
        ("HealthExporterDown", "critical"),
        up("monitoring/health-exporter", "e1:10054", "0")
        | up("health-probe", "t", "0", exporter="e1:10054")
        | up("health-probe", "u", "0", exporter="e1:10054")
        | up("health-probe", "v", "1", exporter="e2:10054"),
        (),
        REPLICA,
        description="e1:10054 cannot be scraped. Unwatched: 2 probed targets.",
        styles=("as_written",),
        until_ends=False,
    ),
    Case(
        # Its own job and its shard's, of /metrics shared between replicas.
        ("HealthExporterDown", "critical"),
        up("health-exporter", "e1:10054", "0", team="core")
        | up("health-exporter-shard-0", "e1:10054", "0", exporter="e1:10054", team="core")
        | up("health-exporter", "e2:10054", "1", team="core")
        | up("health-exporter-shard-1", "e2:10054", "1", exporter="e2:10054", team="core"),
        (),
        REPLICA | {"team": "core"},
        description="e1:10054 cannot be scraped. Unwatched: every target it probes.",
        styles=("as_written",),
    ),
    Case(
        ("HealthExporterConfigReloadFailed", "warning"),
        {RELOADED: "0"},
        ({RELOADED: "1"},),
        EXPORTER,
        styles=("as_written",),
    ),
    Case(
        ("HealthExporterRejectingRequests", "warning"),
        {REJECTED: "0+1x60"},
        ({REJECTED: "0"}, {REJECTED: "1000"}, {REJECTED: "0x3 5x40"}),
        EXPORTER | {"cause": "max_requests"},
        after=660,
        styles=("as_written",),
        until_ends=False,
    ),
    Case(
        ("HealthExporterInternalError", "warning"),
        pryv(series="internal"),
        tuple(pryv(series=reason) for reason in (*SERVICE, *CONFIG, "auth", "")),
        {"check": "series"},
    ),
    Case(
        ("HealthExporterRestarting", "warning"),
        {BORN: "100x4 400x4 700x4 1000x60"},
        (
            {BORN: "100x4 400x4 700x80"},
            {BORN: "100x4 400x14 1300x14 2200x60"},
            {BORN.replace("health-exporter", "node"): "100x4 400x4 700x4 1000x60"},
        ),
        EXPORTER,
        value="3",
        after=900,
        styles=("as_written",),
        until_ends=False,
    ),
)
CASES = (*TARGET_CASES, *PRYV_CASES, *BUNDLE_CASES, *SYSTEM_CASES, *CRON_CASES, *EXPORTER_CASES)


def names() -> tuple[str, ...]:
    """Return the names of all alerts, in the order of the files."""
    return tuple(dict.fromkeys(rule.name for rule in rules() if "alert" in rule.written))


# --- the error budget ---------------------------------------------------------------------------------------------


def verdicts(bits: str, reason: str = "timeout", check: str = "health") -> Series:
    """Return the series of a target whose probes fail where there is a 1."""
    why = (
        "1" if bit == "1" else "stale" if number and bits[number - 1] == "1" else "_" for number, bit in enumerate(bits)
    )
    return {
        "probe_success": " ".join("0" if bit == "1" else "1" for bit in bits),
        f'probe_check_failure_reason{{check="{check}",reason="{reason}"}}': " ".join(why),
    }


FAST, SLOW = ("HealthErrorBudgetBurn", "critical"), ("HealthErrorBudgetBurn", "warning")


def burning(key: tuple[str, str], bits: str, at: int, window: int) -> tuple[int, tuple[str, ...], tuple[Expected, ...]]:
    """Expect the alert at a probe's number, with the ratio of the window that ends there."""
    part = bits[max(0, at - window) : at + 1]
    value = f"{100 * part.count('1') / len(part):.4g}%"
    labels = {"target": "t", "job": "health-exporter", "collector": "bundles"}
    reasons = "health=timeout " if bits[at] == "1" else ""
    return at, (key[0],), (Expected(alert(*key), labels, value, reasons),)


def budget_test(  # noqa: PLR0917
    name: str,
    bits: str,
    key: tuple[str, str],
    fires: Mapping[int, int],
    silent: tuple[int, ...],
    scrape: int = SCRAPE,
    reason: str = "timeout",
) -> tuple[tuple[str, str], int, UnitTest]:
    """Return a test of one rule; `fires` is from the number of a probe to the window, in probes, whose ratio shows."""
    expect = (
        *(burning(key, bits, at, window) for at, window in fires.items()),
        *((at, (key[0],), ()) for at in silent),
    )
    timed = tuple((at * scrape, names, expected) for at, names, expected in sorted(expect, key=lambda one: one[0]))
    return key, scrape, UnitTest(name, scraped(verdicts(bits, reason), "metrics", "bundles"), timed, scrape)


def kept(test: tuple[tuple[str, str], int, UnitTest], at: int, value: str) -> tuple[tuple[str, str], int, UnitTest]:
    """Add that the alert still fires at a probe's number, with the value it had last."""
    key, scrape, made = test
    one = Expected(alert(*key), {"target": "t", "job": "health-exporter", "collector": "bundles"}, value)
    more = ((at * scrape, (key[0],), (one,)),)
    return key, scrape, UnitTest(made.name, made.series, (*made.expect, *more), scrape)


WELL, SIX_HOURS = "0" * 60, "0" * 310
BUDGET_TESTS = (
    # Flapping, never twice running: 33 % of an hour passes 7.2 % at the 5th failure, 13 minutes on; then `for`.
    budget_test("flapping", WELL + "001" * 40, FAST, dict.fromkeys(range(76, 180), 60), (60, 70, 75)),
    # One of five: more time between two failures than an outage that is over is given.
    budget_test("flapping seldom", WELL + "00001" * 24, FAST, dict.fromkeys(range(90, 180), 60), (60, 70, 80)),
    # An outage of 10 minutes ends with its last failure, though the windows are still spoilt.
    budget_test("outage that is over", WELL + "1" * 10 + "0" * 60, FAST, {66: 60, 71: 60}, (60, 65, 72, 73, 90, 120)),
    # The same of 20 minutes, which spoils the six hours, too; a few single failures before do not change it.
    budget_test(
        "long outage that is over", SIX_HOURS + "1" * 20 + "0" * 60, FAST, {316: 60, 331: 60}, (315, *range(332, 390))
    ),
    budget_test(
        "long outage after a few failures",
        "0" * 130 + ("1" + "0" * 19) * 2 + "0" * 80 + ("1" + "0" * 19) * 2 + "0" * 20 + "1" * 20 + "0" * 60,
        FAST,
        {331: 60},
        tuple(range(332, 390)),
    ),
    budget_test("4 failures an hour", ("0" * 14 + "1") * 16, FAST, {}, (60, 120, 180, 239)),
    budget_test("4 % for six hours", ("0" * 24 + "1") * 18, FAST, dict.fromkeys(range(400, 425), 360), (60, 240, 299)),
    budget_test("2.5 % for ever", ("0" * 39 + "1") * 12, FAST, {}, (300, 310, 360, 370, 410, 450, 470)),
    budget_test("first scrape fails", "1" + "0" * 119, FAST, {}, (2, 10, 50, 60, 100)),
    budget_test("new and dead", "1" * 90, FAST, {52: 60}, (2, 10, 49, 51)),
    budget_test("one failure", "0" * 200 + "1" + "0" * 200, FAST, {}, (200, 202, 205, 210, 260, 400)),
    *(
        budget_test(f"{reason} burns nothing", WELL + "1" * 60, FAST, {}, (70, 100, 119), reason=reason)
        for reason in ("auth", "internal", "too_large")
    ),
    budget_test("2 % for a day", ("0" * 49 + "1") * 28, SLOW, {1300: 1440}, (600, 1199, 1214)),
    budget_test("1 % for a day", ("0" * 99 + "1") * 14, SLOW, {}, (1200, 1300, 1390)),
    kept(
        budget_test("bad day that is over", "0" * 1000 + "1" * 100 + "0" * 300, SLOW, {1215: 1440}, (1200, 1234, 1390)),
        1233,
        f"{10000 / 1219:.4g}%",
    ),
    budget_test(
        "a failure in 2 h after a bad day", "0" * 1000 + "1" * 100 + ("0" * 124 + "1") * 2, SLOW, {}, (1250, 1300, 1340)
    ),
    budget_test("0.8 % for three days", ("0" * 124 + "1") * 7, SLOW, {755: 864}, (740, 751), scrape=300),
    budget_test("1.4 % for three days", ("0" * 72 + "1") * 12, SLOW, {723: 864, 870: 864}, (300, 719, 722), scrape=300),
    budget_test("0.4 % for three days", ("0" * 249 + "1") * 4, SLOW, {}, (700, 760, 870), scrape=300),
    budget_test("one failure, slow", "0" * 800 + "1" + "0" * 80, SLOW, {}, (800, 803, 850), scrape=300),
)


# --- how they end ---------------------------------------------------------------------------------------------------


def ending(
    key: tuple[str, ...], series: Series, last: int, value: str = "", **labels: str
) -> tuple[tuple[str, ...], UnitTest]:
    """Return a test that an alert fires up to a second, and is gone at the next evaluation."""
    as_written = any("job=" in name for name in series)
    style: Style = "as_written" if as_written else "metrics"
    one = Case(key, series, labels=labels, value=value).expected(style)
    name = (key[0],)
    expect = ((last, name, (one,)), (last + EVALUATION, name, ()), (last + 300, name, ()))
    return key, UnitTest(f"{key} ends at {last}", scraped(series, style), expect)


LOOP_THEN_OFTEN = "0 1 2 3 4 5x300 6x19 7x19 8x19 9x19 10x19 11x30"
ENDINGS = (
    *(
        ending(("HealthServiceRestarting", "warning"), {metric: "1000x9 1600x9 2200x9 2800x120"}, 84 * 60, "3")
        for metric in ("system_health_start_time_seconds", "bundle_host_start_time_seconds")
    ),
    ending(("HealthExporterRestarting", "warning"), {BORN: "100x4 400x4 700x4 1000x60"}, 49 * 60, "3", **EXPORTER),
    ending(
        ("HealthExporterRejectingRequests", "warning"),
        {REJECTED: "0+1x20 20x40"},
        24 * 60,
        **EXPORTER,
        cause="max_requests",
    ),
    ending(
        ("HealthBundleRestartsOften", "warning"),
        {'bundle_restarts_total{bundle="weather"}': "0x39 1x39 2x39 3x39 4x39 5x39 6x300"},
        429 * 60,
        "6",
        **WEATHER,
    ),
    *(
        ending(
            ("HealthBundleCrashLooping", severity),
            {'bundle_instances{bundle="weather",state="cooldown"}': "1x4 0x40"} | more,
            19 * 60,
            **WEATHER,
        )
        for severity, more in (
            ("critical", {'bundle_expected_missing{bundle="weather"}': "0x60"}),
            ("warning", Series()),
        )
    ),
    ending(("HealthCertificateExpiry", "critical"), {EXPIRY: f"{2 * DAY + 1740}x14 stale"}, 29 * 60, "2d 0h 0m 0s"),
    ending(("HealthCertificateExpiry", "warning"), {EXPIRY: f"{13 * DAY + 4740}x64 stale"}, 79 * 60, "13d 0h 0m 0s"),
    ending(
        ("HealthCertificateExpiry", "critical", "true"),
        {name: f"{values}x2 stale" for name, values in (all_of(HOST, "tls") | {EXPIRY: "-60"}).items()},
        165 + 420,
        "3m 45s",
    ),
    ending(
        ("HealthPryvTokenExpiry", "warning"),
        {"pryv_token_expiry_timestamp_seconds": f"{13 * DAY + 2040}x19 stale"},
        34 * 60,
        "13d 0h 0m 0s",
    ),
)
OTHERS = (
    # Six restarts in 6 hours, more than 6 hours after a crash loop.
    (
        ("HealthBundleRestartsOften", "warning"),
        UnitTest(
            "often, long after a loop",
            scraped({'bundle_restarts_total{bundle="weather"}': LOOP_THEN_OFTEN}, "metrics"),
            (
                (404 * 60, ("HealthBundleRestartsOften",), ()),
                (
                    410 * 60,
                    ("HealthBundleRestartsOften",),
                    (
                        Expected(
                            alert("HealthBundleRestartsOften", "warning"),
                            {"target": "t", "job": "health-exporter", **WEATHER},
                            "6",
                        ),
                    ),
                ),
            ),
        ),
    ),
)

ABSENT = (
    UnitTest("no job", {}, ((585, ("HealthExporterAbsent",), ()),)),
    *(
        UnitTest(
            f"only {job}",
            up(job, "x", "1x60"),
            (
                (585, ("HealthExporterAbsent",), ()),
                (600, ("HealthExporterAbsent",), (Expected(alert("HealthExporterAbsent", "critical"), {}),)),
            ),
        )
        for job in ("node", "health-probe")
    ),
    *(
        UnitTest(f"{job} {values}", up(job, "x", values), ((1200, ("HealthExporterAbsent",), ()),))
        for job in ("health-exporter", "monitoring/health-exporter")
        for values in ("1x60", "0x60", "1 stale _x7 1x30")
    ),
)

# --- the recordings -----------------------------------------------------------------------------------------------

WINDOWS = {"5m": "3m", "30m": "25m", "1h": "50m", "2h": "100m", "6h": "5h", "1d": "20h", "3d": "60h", "30d": "25d"}
"""Each window, and how old a target must be for its ratio."""


# --- whole states of a target ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class State:
    """A fault, or a healthy state that is noisy, and exactly the alerts it raises; `pages` are those not inhibited."""

    name: str
    series: Series
    raised: tuple[tuple[tuple[str, ...], Labels], ...] = ()
    notified: tuple[str, ...] = ()
    at: int = 8 * 60
    collector: str = "pryv"
    values: Mapping[str, str] = field(default_factory=dict)
    reasons: str = ""

    def expected(self) -> tuple[Expected, ...]:
        """Return the alerts as promtool shows them."""
        found = []
        for key, labels in self.raised:
            case = Case(key, self.series, labels=labels, collector=self.collector)
            one = case.expected("metrics")
            found.append(Expected(one.rule, one.labels, self.values.get(key[0], ""), self.reasons or one.reasons))
        return tuple(found)

    def firing(self) -> list[Labels]:
        """Return the label sets Alertmanager gets."""
        return [
            {"alertname": one.rule.name} | {k: str(v) for k, v in one.written()["exp_labels"].items()}
            for one in self.expected()
        ]

    def unit_test(self) -> UnitTest:
        steady = {key: for_ever(values, self.at // SCRAPE + 3) for key, values in self.series.items()}
        series = scraped(steady, "metrics", self.collector) | up("health-exporter", "e1:10054", "1x60")
        return UnitTest(self.name, series, ((self.at, names(), self.expected()),))


def critical(name: str, **labels: str) -> tuple[tuple[str, ...], Labels]:
    return (name, "critical"), labels


def warning(name: str, **labels: str) -> tuple[tuple[str, ...], Labels]:
    return (name, "warning"), labels


DOWN = critical("HealthTargetDown")
PLATFORM, STORAGE = critical("HealthPryvPlatformDown"), critical("HealthPryvStorageDown")
ACCESS = warning("HealthCheckFailing", check="access")
INFO_CHECK = warning("HealthCheckFailing", check="service_info")
DNS, REGISTRATION = critical("HealthPryvDnsFailing"), critical("HealthPryvRegistrationDown")
HFS, STUCK = critical("HealthPryvHfsDown"), critical("HealthPryvSeriesStuck")
AUTH, MISCONFIGURED = warning("HealthTargetAuthFailing"), warning("HealthTargetMisconfigured")


def refused(reason: str = "http_status") -> dict[str, str]:
    return {"storage": reason, "access": reason, "series": reason}


PRYV_STATES = (
    State(
        "pg refused, single core: platform fails too",
        pryv(**refused(), platform="http_status"),
        (STORAGE, ACCESS),
        ("HealthPryvStorageDown",),
    ),
    State(
        "pg frozen, single core",
        pryv(**refused("timeout"), platform="timeout"),
        (STORAGE, ACCESS),
        ("HealthPryvStorageDown",),
    ),
    State(
        "pg refused, platform has a database of its own",
        pryv(**refused()),
        (STORAGE, ACCESS),
        ("HealthPryvStorageDown",),
    ),
    State("pg refused, several cores", multi(**refused()), (STORAGE, ACCESS), ("HealthPryvStorageDown",)),
    State(
        "pg cold",
        pryv(**refused(), registration="http_status", platform="http_status"),
        (STORAGE, ACCESS, REGISTRATION),
        ("HealthPryvStorageDown",),
    ),
    State("events table", pryv(storage="http_status"), (STORAGE,), ("HealthPryvStorageDown",)),
    State("platform, single core", pryv(platform="http_status"), (PLATFORM,), ("HealthPryvPlatformDown",)),
    State(
        "platform, several cores",
        multi(platform="http_status", storage="http_status", access="http_status", series="timeout", dns="dns"),
        (PLATFORM, STORAGE, ACCESS, DNS),
        ("HealthPryvPlatformDown",),
    ),
    State(
        "platform hangs, several cores",
        multi(platform="timeout", storage="timeout", access="timeout", series="timeout", dns="timeout"),
        (PLATFORM, STORAGE, ACCESS, DNS),
        ("HealthPryvPlatformDown",),
    ),
    State(
        "core dead, several cores",
        all_of((*PRYV, "dns"), "connect", dns="", access=""),
        (DOWN, PLATFORM, STORAGE, REGISTRATION, HFS, INFO_CHECK),
        ("HealthTargetDown",),
    ),
    State(
        "only worker frozen",
        all_of(PRYV, "timeout", hfs=""),
        (DOWN, STORAGE, REGISTRATION, INFO_CHECK, ACCESS),
        ("HealthTargetDown",),
    ),
    State("hfs dead", pryv(hfs="http_status", series="http_status"), (HFS,), ("HealthPryvHfsDown",)),
    State("hfs frozen", pryv(hfs="timeout", series="timeout"), (HFS,), ("HealthPryvHfsDown",)),
    State("hfs stuck", pryv(series="timeout"), (STUCK,), ("HealthPryvSeriesStuck",)),
    State("host pitfall", pryv(series="wrong_target"), (MISCONFIGURED,), ("HealthTargetMisconfigured",)),
    State(
        "wrong core",
        multi(
            storage="wrong_target", access="wrong_target", registration="not_found", series="not_found", dns="unhealthy"
        ),
        (MISCONFIGURED,),
        ("HealthTargetMisconfigured",),
    ),
    State(
        "account gone",
        multi(storage="not_found", access="not_found", registration="not_found", series="not_found", dns="dns"),
        (critical("HealthPryvAccountMissing"),),
        ("HealthPryvAccountMissing",),
    ),
    State("token revoked", pryv(storage="auth", access="auth"), (AUTH,), ("HealthTargetAuthFailing",)),
    State("registration", pryv(registration="http_status"), (REGISTRATION,), ("HealthPryvRegistrationDown",)),
    State("name missing", multi(dns="dns"), (DNS,), ("HealthPryvDnsFailing",)),
    State("dns dead", multi(dns="timeout"), (DNS,), ("HealthPryvDnsFailing",)),
    State("wrong address", multi(dns="unhealthy"), (DNS,), ("HealthPryvDnsFailing",)),
    State(
        "bug",
        pryv(series="internal"),
        (warning("HealthExporterInternalError", check="series"),),
        ("HealthExporterInternalError",),
    ),
    State(
        "certificate expired",
        all_of(PRYV, "tls") | {EXPIRY: "-600"},
        (
            (("HealthCertificateExpiry", "critical", "true"), {}),
            STORAGE,
            REGISTRATION,
            HFS,
            INFO_CHECK,
            ACCESS,
        ),
        ("HealthCertificateExpiry",),
        values={"HealthCertificateExpiry": "18m 0s"},
    ),
)
OTHER_STATES = (
    # A dead host: its bundles vanish with it.
    State(
        "bundle host dead",
        all_of(HOST, "connect"),
        (DOWN, warning("HealthCheckFailing", check="health"), warning("HealthCheckFailing", check="bundles")),
        ("HealthTargetDown",),
        collector="bundles",
    ),
    State(
        "bundle crash-loops",
        checks(health="", bundles="") | bundle("cooldown", expected=True),
        (critical("HealthBundleCrashLooping", bundle="weather"),),
        ("HealthBundleCrashLooping",),
        collector="bundles",
    ),
    State(
        "bundle dead",
        checks(health="", bundles="") | bundle("dead", expected=True),
        (critical("HealthBundleDown", bundle="weather"),),
        ("HealthBundleDown",),
        collector="bundles",
    ),
    State(
        "postgres",
        {'system_health_component_up{component="postgres"}': "0", 'system_health_status{status="degraded"}': "1"},
        (critical("HealthSystemComponentDown", component="postgres"),),
        ("HealthSystemComponentDown",),
        collector="system_health",
    ),
    State(
        "mongodb",
        {'system_health_component_up{component="mongodb"}': "0", 'system_health_status{status="degraded"}': "1"},
        (warning("HealthSystemComponentDown", component="mongodb"),),
        ("HealthSystemComponentDown",),
        collector="system_health",
    ),
    State(
        "unexplained",
        {'system_health_status{status="degraded"}': "1"},
        (warning("HealthSystemDegraded"),),
        ("HealthSystemDegraded",),
        collector="system_health",
    ),
    State(
        "detailed 401",
        all_of(MEDIA, "", detailed="auth"),
        (AUTH,),
        ("HealthTargetAuthFailing",),
        collector="system_health",
    ),
    State(
        "detailed hangs",
        all_of(MEDIA, "", detailed="timeout"),
        (warning("HealthCheckFailing", check="detailed"),),
        ("HealthCheckFailing",),
        collector="system_health",
    ),
    State(
        "bad row",
        all_of(CRON, "", checks="http_status"),
        (critical("HealthCronProjectUnreadable"),),
        ("HealthCronProjectUnreadable",),
        collector="healthchecks",
    ),
    State(
        "cron dead",
        all_of(CRON, "http_status"),
        (DOWN, critical("HealthCronProjectUnreadable"), warning("HealthCheckFailing", check="status")),
        ("HealthTargetDown",),
        collector="healthchecks",
    ),
    State(
        "cron key wrong",
        all_of(CRON, "", checks="auth"),
        (AUTH,),
        ("HealthTargetAuthFailing",),
        collector="healthchecks",
    ),
    State(
        "too many checks",
        all_of(CRON, "", checks="too_large"),
        (MISCONFIGURED,),
        ("HealthTargetMisconfigured",),
        collector="healthchecks",
    ),
)

LONG = 35 * 60
NOISE = (
    State("all well", multi() | {EXPIRY: "99999999"}, at=LONG),
    State(
        "jobs paused, new, late, running",
        all_of(CRON, "")
        | project(paused=9, new=9, grace=9, up=1)
        | {
            f'healthchecks_check_status{{unique_key="a",status="{status}"}}': "1"
            for status in ("paused", "new", "grace")
        }
        | {'healthchecks_check_started{unique_key="a"}': "1", "healthchecks_alerting_lag_seconds": "0"},
        at=LONG,
        collector="healthchecks",
    ),
    State(
        "alert loop away for 30 s",
        {"healthchecks_alerting_lag_seconds": "0x3 30 61 0x60"},
        at=6 * 60,
        collector="healthchecks",
    ),
    State(
        "host deployed",
        {
            "probe_success": "1x3 0 1x60",
            'probe_check_success{check="health"}': "1x3 0 1x60",
            'probe_check_failure_reason{check="health",reason="connect"}': "_x3 1 stale",
        },
        at=6 * 60,
        collector="bundles",
    ),
    State(
        "one slow probe",
        {"probe_success": "1", "probe_duration_seconds": "1x5 9.9 1x60", "probe_timeout_seconds": "10"},
        at=16 * 60,
    ),
    State("one crash", bundle("healthy", restarts="0x2 1 0x60", total="0x2 1x60"), at=LONG, collector="bundles"),
    State("two crashes in an hour", bundle("healthy", total="0x2 1x20 2x60"), at=LONG, collector="bundles"),
    State("uninstalled", bundle("dead", restarts="0"), at=LONG, collector="bundles"),
    State("stopped by hand", bundle("stopped", restarts="0"), at=LONG, collector="bundles"),
    State(
        "endpoint not offered",
        checks(health="") | bundle("healthy") | {'bundle_endpoint_offered{api="bundles"}': "0"},
        at=LONG,
        collector="bundles",
    ),
    State(
        "no hfs",
        checks(**{check: "" for check in PRYV if check not in ("hfs", "series")}) | {"pryv_hfs_enabled": "0"},
        at=LONG,
    ),
    State("token without expiry", multi() | {'pryv_token_info{access_type="shared",level="read"}': "1"}, at=LONG),
    State(
        "access unread for 10 m",
        {"pryv_token_expiry_timestamp_seconds": "99999999x5 stale _x9 99999999x60"},
        at=20 * 60,
    ),
    State("skew of 0.8 s", {"pryv_clock_skew_seconds": "0.8"}, at=LONG),
    State(
        "degraded once",
        {
            'system_health_status{status="degraded"}': "0x3 1 0x60",
            'system_health_component_up{component="postgres"}': "1x3 0 1x60",
        },
        at=8 * 60,
        collector="system_health",
    ),
    State(
        "integration off",
        {
            'system_health_integration_enabled{integration="tmdb"}': "0",
            'system_health_integration_api_key_configured{integration="tmdb"}': "0",
        },
        at=LONG,
        collector="system_health",
    ),
    State(
        "anomalies for information",
        {'system_health_consistency_anomalies{anomaly="unregistered_with_uuid",level="info"}': "12"},
        at=LONG,
        collector="system_health",
    ),
    State(
        "exporter away for a minute",
        {
            "probe_success": "1x3 stale 1x60",
            'probe_check_success{check="health"}': "1x3 stale 1x60",
            "bundle_host_start_time_seconds": "1000x3 stale 1000x60",
        },
        at=6 * 60,
        collector="bundles",
    ),
    State("counter reset", bundle("healthy", total="5x10 0x60"), at=LONG, collector="bundles"),
    State(
        "read-only key",
        all_of((*CRON, "integrations"), "", integrations="auth") | project(up=3),
        at=LONG,
        collector="healthchecks",
    ),
    State(
        "one hosting closed",
        multi() | {'pryv_hosting_available{hosting="a"}': "0", 'pryv_hosting_available{hosting="b"}': "1"},
        at=LONG,
    ),
    State(
        "auth from memory, no status",
        pryv(storage="auth", series="auth", access="auth"),
        (AUTH,),
        ("HealthTargetAuthFailing",),
        at=15 * 60,
    ),
    State(
        "reason changes, one timer",
        {
            "probe_success": "0",
            'probe_check_success{check="storage"}': "0",
            'probe_check_failure_reason{check="storage",reason="timeout"}': "1 stale 1 stale 1 stale 1 stale 1 stale",
            'probe_check_failure_reason{check="storage",reason="connect"}': "_ 1 stale 1 stale 1 stale 1 stale 1",
            'probe_check_success{check="platform"}': "1",
        },
        (STORAGE,),
        ("HealthPryvStorageDown",),
        at=4 * 60,
        reasons="storage=timeout ",
    ),
)
STATES = (*PRYV_STATES, *OTHER_STATES, *NOISE)
