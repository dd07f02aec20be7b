"""The alerting rules: their structure, what each of them does under promtool, and that the documents keep up."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from health_exporter.reference import TABLES
from tests.alerts.cases import (
    ABSENT,
    BUDGET_TESTS,
    CASES,
    SIX_HOURS,
    STATES,
    STYLES,
    WINDOWS,
    State,
    checks,
    for_ever,
    names,
    scraped,
    verdicts,
)
from tests.alerts.rules import (
    DIRECTORY,
    RULE_FILES,
    Expected,
    Rule,
    UnitTest,
    alert,
    alerts,
    file_of,
    recordings,
    rules,
    run,
    seconds,
)
from tests.tools import mutate_rules

ROOT = DIRECTORY.parent
EXPECTED_NAMES = {
    "ErrorBudgetBurn",
    "TargetDown",
    "ManyTargetsDown",
    "TargetNotProbed",
    "TargetAuthFailing",
    "TargetMisconfigured",
    "CheckFailing",
    "ProbeSlow",
    "CertificateExpiry",
    "UnknownState",
    "ServiceRestarting",
    "PryvPlatformDown",
    "PryvStorageDown",
    "PryvDnsFailing",
    "PryvRegistrationDown",
    "PryvHfsDown",
    "PryvSeriesStuck",
    "PryvAccountMissing",
    "PryvTokenExpiry",
    "PryvClockSkew",
    "PryvNoHosting",
    "BundleCrashLooping",
    "BundleDown",
    "BundleMissing",
    "BundleRestartsOften",
    "SystemComponentDown",
    "SystemDegraded",
    "SystemPipelineNotReady",
    "SystemScriptsModified",
    "SystemSchemaOutdated",
    "SystemIdentitiesOutOfSync",
    "SystemIntegrationUnreachable",
    "SystemInconsistent",
    "CronAlertingStuck",
    "CronProjectUnreadable",
    "CronCheckDown",
    "CronManyChecksDown",
    "CronNoChecks",
    "CronNoIntegrations",
    "ExporterDown",
    "ExporterAbsent",
    "ExporterConfigReloadFailed",
    "ExporterRejectingRequests",
    "ExporterInternalError",
    "ExporterRestarting",
}
RUNBOOKS = "https://example.com/health_exporter/runbooks.md#"
LABELS_OF = {metric.name: set(metric.label_names) for table in TABLES.values() for metric in table}
SCRAPE_LABELS = {"job", "instance", "pod", "exporter"}
"""What scraping adds; `exporter` is a scrape config's own, HOST:PORT of the exporter that is asked."""


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["promtool", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def ids(rule: Rule) -> str:
    return "-".join(rule.key)


# --- structure ----------------------------------------------------------------------------------------------------


class TestStructure:
    def test_all_alerts_are_there(self) -> None:
        assert {name.removeprefix("Health") for name in names()} == EXPECTED_NAMES
        assert len(EXPECTED_NAMES) == 45
        assert len(alerts()) == 51

    def test_every_rule_file_is_known(self) -> None:
        assert set(DIRECTORY.glob("*.yml")) == {*RULE_FILES, DIRECTORY / "alertmanager.example.yml"}

    def test_rules_of_one_name_have_another_severity_or_label(self) -> None:
        assert len({rule.key for rule in alerts()}) == len(alerts())

    @pytest.mark.parametrize("rule", alerts(), ids=ids)
    def test_an_alert_says_what_it_must(self, rule: Rule) -> None:
        assert rule.labels["severity"] in {"critical", "warning", "info"}
        assert set(rule.annotations) == {"summary", "description", "runbook_url"}
        assert re.fullmatch(r"[A-Z][^{}]*\.", rule.annotations["summary"])
        assert rule.annotations["runbook_url"] == RUNBOOKS + rule.name.lower()
        if rule.name != "HealthExporterAbsent":
            assert "{{ $labels." in rule.annotations["description"]

    @pytest.mark.parametrize("rule", alerts(), ids=ids)
    def test_a_reason_is_no_label_of_an_alert(self, rule: Rule) -> None:
        assert "reason" not in rule.labels
        cases = [case for case in CASES if case.key == rule.key]
        assert all("reason" not in case.expected(style).labels for case in cases for style in case.styles)

    @pytest.mark.parametrize("rule", alerts(), ids=ids)
    def test_a_rule_for_a_collector_says_so(self, rule: Rule) -> None:
        kinds = {"pryv", "bundles", "system_health", "healthchecks"}
        assert rule.labels.get("collector") == (rule.file if rule.file in kinds else None)

    @pytest.mark.parametrize("rule", rules(), ids=ids)
    def test_a_rule_reads_only_what_exists(self, rule: Rule) -> None:
        recorded = {one.name for one in recordings()}
        queries = [query for text in rule.annotations.values() for query in queries_of(text)]
        for text in (rule.expr, *queries):
            for metric, matchers in metrics_in(text):
                assert metric in {*LABELS_OF, *recorded, "up", "process_start_time_seconds"}, metric
                own = LABELS_OF.get(metric, {"target", "bundle"} if metric in recorded else set())
                assert set(matchers) <= own | SCRAPE_LABELS, (metric, matchers)
                if "job" in matchers and metric in LABELS_OF:
                    assert text != rule.expr, "the job is asked for `up` and process_* only"

    @pytest.mark.parametrize("rule", rules(), ids=ids)
    def test_a_rule_groups_by_labels_that_exist(self, rule: Rule) -> None:
        known = set().union(*LABELS_OF.values()) | SCRAPE_LABELS
        for labels in re.findall(r"(?:by|without|on) \(([^()]*)\)", rule.expr):
            assert set(re.findall(r"\w+", labels)) <= known

    @pytest.mark.parametrize("rule", rules(), ids=ids)
    def test_a_target_is_never_told_by_instance(self, rule: Rule) -> None:
        """`on` has `instance` only where two metrics of one scrape are joined."""
        for labels in re.findall(r"\bon \(([^()]*)\)", rule.expr):
            assert "target" in labels or labels == "job"

    def test_the_reasons_named_in_rules_exist(self) -> None:
        known = {"auth", "internal", "not_found", "wrong_target", "redirect", "too_large"}
        known |= {"dns", "connect", "tls", "timeout", "disconnect"}
        for rule in rules():
            for values in re.findall(r'reason[=!]~?"([^"]*)"', rule.expr):
                assert set(values.split("|")) <= known


WORDS = {
    "abs",
    "absent",
    "and",
    "avg_over_time",
    "changes",
    "count",
    "group",
    "increase",
    "label_replace",
    "last_over_time",
    "max",
    "max_over_time",
    "min",
    "or",
    "present_over_time",
    "rate",
    "resets",
    "sum",
    "time",
    "topk",
    "unless",
}
TOKEN = re.compile(
    r'"(?:[^"\\]|\\.)*"|\[[^]]*]|offset \w+|(?:by|without|on) \([^()]*\)|\d[\w.]*'
    r"|(?P<name>[a-zA-Z_][\w:]*)(?P<matchers>{[^}]*})?",
)


def metrics_in(expr: str) -> list[tuple[str, list[str]]]:
    """Return every metric of an expression, with the labels its matchers name."""
    return [
        (found["name"], re.findall(r"(\w+)(?:=~|!~|!=|=)", found["matchers"] or ""))
        for found in TOKEN.finditer(expr)
        if found["name"] and found["name"] not in WORDS
    ]


def queries_of(template: str) -> list[str]:
    """Return the expressions that a template asks."""
    found = re.findall(r'printf "((?:[^"\\]|\\.)*)"', template)
    return [query.replace('\\"', '"').replace("%q", '"x"') for query in found]


def test_metrics_are_found_in_expressions() -> None:
    text = 'max without (a) (x_y{b="c|d", e!~"f"} offset 5m) / on (g) rate(h[5m]) > time() - 2 * a:b:c'
    assert metrics_in(text) == [("x_y", ["b", "e"]), ("h", []), ("a:b:c", [])]
    assert queries_of('{{ with printf "count(up{job=%q} == 0)" .x | query }}') == ['count(up{job="x"} == 0)']


# --- what the rules do ----------------------------------------------------------------------------------------------


@pytest.mark.e2e
@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
class TestUnderPromtool:
    @pytest.mark.parametrize("path", RULE_FILES, ids=lambda path: path.stem)
    def test_promtool_accepts_the_file(self, path: Path) -> None:
        result = promtool("check", "rules", path)
        assert result.returncode == 0, result.stderr
        assert "SUCCESS" in result.stdout

    @pytest.mark.parametrize("rule", alerts(), ids=ids)
    def test_an_alert_fires_when_it_must_and_only_then(self, rule: Rule, tmp_path: Path) -> None:
        tests = mutate_rules.tests_of(rule)
        assert tests
        for evaluation, cases in tests.items():
            assert run(tmp_path, {"rules.yml": file_of(rule)}, cases, evaluation) == ""

    @pytest.mark.parametrize("part", range(4))
    def test_a_state_raises_exactly_these_alerts(self, part: int, tmp_path: Path) -> None:
        files = {path.name: path.read_text(encoding="utf-8") for path in RULE_FILES}
        assert run(tmp_path, files, [state.unit_test() for state in STATES[part::4]], 30) == ""

    @pytest.mark.parametrize("style", STYLES)
    def test_an_error_is_recorded_for_every_target(self, style: str, tmp_path: Path) -> None:
        (rule,) = (one for one in recordings() if one.name == "target:probe_error:max")
        tests = []
        for reason, error in (
            ("", 0),
            ("timeout", 1),
            ("not_found", 1),
            ("auth", 0),
            ("internal", 0),
            ("too_large", 0),
        ):
            series = {name: for_ever(values, 5) for name, values in checks(health="", bundles=reason).items()}
            job = {"probe": ',job="health-probe",team="core"'}.get(style, ',job="health-exporter"')
            sample = f'target:probe_error:max{{collector="bundles",target="t"{job}}}'
            recorded: Any = ((120, "target:probe_error:max", {sample: float(error)}),)
            tests.append(UnitTest(reason, scraped(series, style, "bundles"), (), recorded=recorded))  # type: ignore[arg-type]
        assert run(tmp_path, {"rules.yml": file_of(rule)}, tests, 60) == ""

    @pytest.mark.parametrize(("window", "old"), [pair for pair in WINDOWS.items() if pair[0] not in ("3d", "30d")])
    def test_a_ratio_exists_once_its_window_is_nearly_full(self, window: str, old: str, tmp_path: Path) -> None:
        (rule,) = (one for one in recordings() if one.name == f"target:probe_errors:ratio_avg{window}")
        step = 60 if seconds(window) <= 7200 else 300
        begin = seconds(old)
        series = {
            'probe_success{job="j",target="t"}': f"0x{begin // step + 5}",
            'probe_check_failure_reason{job="j",target="t",check="c",reason="timeout"}': f"1x{begin // step + 5}",
        }
        there = {f'{rule.name}{{job="j",target="t"}}': 1.0}
        none: dict[str, float] = {}
        recorded = ((begin - step, rule.name, none), (begin, rule.name, there), (begin + step, rule.name, there))
        test = UnitTest(window, series, (), step, recorded)
        assert run(tmp_path, {"rules.yml": file_of(rule)}, [test], step) == ""

    def test_an_outage_that_is_over_burns_no_longer_than_it_is_hidden(self, tmp_path: Path) -> None:
        burn, cause = alert("HealthErrorBudgetBurn", "critical"), alert("HealthCheckFailing", "warning")
        mended = (len(SIX_HOURS) + 20) * 60
        series = scraped(verdicts(SIX_HOURS + "1" * 20 + "0" * 60), "metrics", "bundles")
        labels = {"target": "t", "job": "health-exporter", "collector": "bundles", "check": "health"}
        firing = (Expected(cause, labels, reasons="health=timeout "),)
        expect = (
            (mended + 150, (burn.name, cause.name), firing),
            (mended + 165, (burn.name, cause.name), firing),
            *((mended + after, (burn.name, cause.name), ()) for after in range(180, 3000, 60)),
        )
        test = UnitTest("mended", series, expect)
        assert run(tmp_path, {"rules.yml": file_of(burn, cause)}, [test]) == ""

    def test_the_longest_ratios_are_made_as_the_others(self) -> None:
        for window, old in WINDOWS.items():
            (rule,) = (one for one in recordings() if one.name == f"target:probe_errors:ratio_avg{window}")
            assert rule.expr.startswith(f"avg_over_time(target:probe_error:max[{window}])\nand present_over_time(")
            (part, offset) = re.findall(r"max\[(\w+)\] offset (\w+)\)", rule.expr)[0]
            assert (seconds(offset), seconds(part) + seconds(offset)) == (seconds(old), seconds(window))

    def test_a_loop_is_recorded_for_every_bundle(self, tmp_path: Path) -> None:
        (rule,) = (one for one in recordings() if one.name == "target_bundle:bundle_crash_looping:max")
        common = 'job="j",target="t",bundle="b"'
        recorded = {f"{rule.name}{{{common}}}": 1.0}
        restarts = f'bundle_restarts_total{{{common},instance="i"}}'
        cooldown = f'bundle_instances{{{common},state="cooldown",instance="i"}}'
        dead = f'bundle_instances{{{common},state="dead",instance="i"}}'
        at = 20 * 60
        tests = [
            UnitTest("4 in 15 m", {restarts: "0x9 1 2 3 4x30"}, (), recorded=((at, rule.name, recorded),)),
            UnitTest("3 in 15 m", {restarts: "0x9 1 2 3x30"}, (), recorded=((at, rule.name, {}),)),
            UnitTest("4 in 40 m", {restarts: "0x9 1x9 2x9 3x9 4x30"}, (), recorded=((45 * 60, rule.name, {}),)),
            UnitTest("cooldown 9 m ago", {cooldown: "1x11 0x30"}, (), recorded=((at, rule.name, recorded),)),
            UnitTest("cooldown 11 m ago", {cooldown: "1x8 0x30"}, (), recorded=((at, rule.name, {}),)),
            UnitTest("dead", {dead: "1x40", cooldown: "0x40"}, (), recorded=((at, rule.name, {}),)),
            UnitTest("both", {restarts: "0+1x40", cooldown: "1x40"}, (), recorded=((at, rule.name, recorded),)),
        ]
        assert run(tmp_path, {"rules.yml": file_of(rule)}, tests, 60) == ""

    def test_the_tests_see_a_broken_rule(self) -> None:
        """A few of the mutants; tests/tools/mutate_rules.py tries them all."""
        total, left = mutate_rules.survivors("HealthPryvAccountMissing", "HealthCronAlertingStuck")
        assert total > 20
        assert left == []


def test_every_rule_has_a_case() -> None:
    tested = {case.key for case in CASES} | {key for key, _, _ in BUDGET_TESTS}
    tested |= {("HealthExporterAbsent", "critical")} if ABSENT else set()
    assert tested == {rule.key for rule in alerts()}


def test_every_alert_that_has_to_survive_flapping_is_tested_for_it() -> None:
    flapping = {
        test.name.removesuffix(" flaps") for case in CASES for test in case.unit_tests() if "flaps" in test.name
    }
    kept = {str(rule.key) for rule in alerts() if rule.seconds("keep_firing_for")}
    other = {
        str(key)
        for key in (
            # Their values move, or their series are written out; tests of their own let them flap or end.
            ("HealthErrorBudgetBurn", "warning"),
            ("HealthCertificateExpiry", "critical", "true"),
            ("HealthServiceRestarting", "warning"),
            ("HealthBundleCrashLooping", "critical"),
            ("HealthBundleCrashLooping", "warning"),
            ("HealthBundleRestartsOften", "warning"),
            ("HealthExporterRestarting", "warning"),
        )
    }
    assert kept - flapping <= other


# --- documents ------------------------------------------------------------------------------------------------------


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", names())
def test_the_runbook_has_a_section_for_the_alert(name: str) -> None:
    found = re.findall(rf"^## {name}$(.*?)(?=^## |\Z)", text_of("docs/runbooks.md"), re.MULTILINE | re.DOTALL)
    assert len(found) == 1
    for part in ("*Means.*", "*What the target does.*", "*Check.*", "*Fix.*"):
        assert part in found[0], part


def test_the_runbook_has_no_section_for_an_alert_that_is_gone() -> None:
    assert set(re.findall(r"^## (Health\w+)$", text_of("docs/runbooks.md"), re.MULTILINE)) == set(names())


def rows() -> list[tuple[str, str, str, str, str]]:
    """Return the rows of the table of alerts: name, severity, for, kept, meaning."""
    found = re.findall(
        r"^\| \[`(Health\w+)`\]\(runbooks\.md#(\w+)\) \| (.*) \|$", text_of("docs/alerting.md"), re.MULTILINE
    )
    assert all(anchor == name.lower() for name, anchor, _ in found)
    made = []
    for name, _, rest in found:
        severity, after, kept, meaning = rest.split(" | ")
        made.append((name, severity, after, kept, meaning))
    return made


def test_the_table_of_alerts_is_that_of_the_rules() -> None:
    written = [
        (
            rule.name,
            rule.labels["severity"],
            str(rule.written.get("for", "0")),
            str(rule.written.get("keep_firing_for", "0")),
            rule.annotations["summary"],
        )
        for rule in alerts()
    ]
    assert rows() == written


def test_the_documents_name_only_alerts_that_exist() -> None:
    for document in ("docs/alerting.md", "docs/runbooks.md", "alerts/alertmanager.example.yml"):
        named = re.findall(r"\bHealth(?:[A-Z][a-z]+)+\b(?![(.])", text_of(document))
        assert set(named) <= set(names()), document


def test_states_are_told_apart_by_name() -> None:
    assert len({state.name for state in STATES}) == len(STATES)
    assert all(isinstance(state, State) for state in STATES)
    assert alert("HealthTargetDown", "critical").file == "targets"
