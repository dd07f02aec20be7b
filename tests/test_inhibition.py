"""The evaluator of inhibition, and what the example config makes of alerts that fire together."""

import re
from typing import Any

import pytest
import yaml

from tests.alerts.cases import STATES, State
from tests.alerts.rules import DIRECTORY, Rule, alerts, seconds
from tests.inhibition import InhibitRule, Matcher, notifying

CONFIG: dict[str, Any] = yaml.safe_load((DIRECTORY / "alertmanager.example.yml").read_text(encoding="utf-8"))
RULES = tuple(InhibitRule.parse(written) for written in CONFIG["inhibit_rules"])
SEVERITY = {rule.name: rule.labels["severity"] for rule in reversed(alerts())}


# --- the evaluator ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("matcher", "labels", "expected"),
    [
        ('a="b"', {"a": "b"}, True),
        ("a=b", {"a": "b"}, True),
        ('a="b"', {"a": "c"}, False),
        ('a="b"', {}, False),
        ('a=""', {}, True),
        ('a!="b"', {"a": "c"}, True),
        ('a!="b"', {"a": "b"}, False),
        ('a!="b"', {}, True),
        ('a=~"b|c"', {"a": "c"}, True),
        ('a=~"b|c"', {"a": "cc"}, False),
        ('a=~"b.*"', {"a": "bcd"}, True),
        ('a=~".+"', {}, False),
        ('a!~"b|c"', {"a": "c"}, False),
        ('a!~"b|c"', {"a": "bc"}, True),
        (' a = "b" ', {"a": "b"}, True),
        (r'a="say \"b\""', {"a": 'say "b"'}, True),
    ],
)
def test_a_matcher_matches_the_whole_value(matcher: str, labels: dict[str, str], expected: bool) -> None:
    assert Matcher.parse(matcher).matches(labels) is expected


@pytest.mark.parametrize("text", ["", "a", '="b"', "a b", '1a="b"'])
def test_something_else_is_no_matcher(text: str) -> None:
    with pytest.raises(ValueError, match="not a matcher"):
        Matcher.parse(text)


def rule(source: str, target: str, *equal: str) -> InhibitRule:
    return InhibitRule.parse({"source_matchers": [source], "target_matchers": [target], "equal": list(equal)})


def test_a_source_hides_targets_with_equal_labels() -> None:
    source, near, far = {"n": "A", "t": "1"}, {"n": "B", "t": "1"}, {"n": "B", "t": "2"}
    assert notifying([rule("n=A", "n=B", "t")], [source, near, far]) == [source, far]
    assert notifying([rule("n=A", "n=B")], [source, near, far]) == [source]
    assert notifying([rule("n=A", "n=B", "t")], [near, far]) == [near, far]


def test_a_label_missing_on_both_sides_is_equal() -> None:
    assert notifying([rule("n=A", "n=B", "t")], [{"n": "A"}, {"n": "B"}]) == [{"n": "A"}]
    assert len(notifying([rule("n=A", "n=B", "t")], [{"n": "A"}, {"n": "B", "t": "1"}])) == 2


def test_a_hidden_alert_still_hides() -> None:
    chain = [rule("n=A", "n=B"), rule("n=B", "n=C")]
    assert notifying(chain, [{"n": "A"}, {"n": "B"}, {"n": "C"}]) == [{"n": "A"}]


def test_alerts_that_match_both_sides_do_not_hide_each_other() -> None:
    firing = [{"n": "A"}, {"n": "B"}]
    assert notifying([rule("n=~.*", "n=~.*")], firing) == firing
    assert notifying([rule("n=~A|B", "n=B")], [*firing, {"n": "B", "x": "1"}]) == [{"n": "A"}]


# --- the example config ---------------------------------------------------------------------------------------------


def firing(name: str, severity: str = "", **labels: str) -> dict[str, str]:
    of = {"alertname": name, "severity": severity or SEVERITY[name], "job": "health-probe"}
    return of | ({} if name == "HealthManyTargetsDown" else {"target": "t"}) | labels


def names(alerts_left: list[Any]) -> list[str]:
    return [alert["alertname"] for alert in alerts_left]


PRODUCT = sorted(
    name
    for name in SEVERITY
    if name not in ("HealthTargetDown", "HealthTargetNotProbed", "HealthManyTargetsDown")
    and not name.startswith("HealthExporter")
)
HIDES: dict[str, list[str]] = {
    "HealthTargetDown": PRODUCT,
    "HealthCertificateExpiry": ["HealthTargetDown", *(name for name in PRODUCT if name != "HealthCertificateExpiry")],
    "HealthPryvPlatformDown": [
        "HealthPryvStorageDown",
        "HealthPryvDnsFailing",
        "HealthPryvRegistrationDown",
        "HealthPryvSeriesStuck",
        "HealthPryvNoHosting",
        "HealthCheckFailing",
        "HealthErrorBudgetBurn",
        "HealthProbeSlow",
    ],
    "HealthPryvStorageDown": [
        "HealthPryvRegistrationDown",
        "HealthPryvSeriesStuck",
        "HealthCheckFailing",
        "HealthErrorBudgetBurn",
        "HealthProbeSlow",
    ],
    "HealthPryvAccountMissing": [
        "HealthPryvRegistrationDown",
        "HealthPryvDnsFailing",
        "HealthTargetMisconfigured",
        "HealthErrorBudgetBurn",
        "HealthProbeSlow",
    ],
    "HealthCronManyChecksDown": ["HealthCronCheckDown"],
    "HealthSystemComponentDown": [
        "HealthSystemDegraded",
        "HealthSystemSchemaOutdated",
        "HealthSystemIdentitiesOutOfSync",
        "HealthSystemInconsistent",
        "HealthCheckFailing",
    ],
    "HealthBundleCrashLooping": ["HealthBundleDown", "HealthBundleRestartsOften"],
    **{
        name: ["HealthErrorBudgetBurn", "HealthProbeSlow"]
        for name in (
            "HealthPryvRegistrationDown",
            "HealthPryvHfsDown",
            "HealthPryvDnsFailing",
            "HealthPryvSeriesStuck",
            "HealthCronProjectUnreadable",
            "HealthCheckFailing",
            "HealthTargetMisconfigured",
        )
    },
}


@pytest.mark.parametrize("source", sorted(SEVERITY))
def test_a_cause_hides_exactly_its_consequences(source: str) -> None:
    extra = {"expired": "true"} if source == "HealthCertificateExpiry" else {}
    cause = firing(source, **extra, bundle="b")
    others = [firing(name, bundle="b") for name in sorted(SEVERITY) if name != source]
    hidden = [other["alertname"] for other in others if other not in notifying(RULES, [cause, other])]
    if source == "HealthExporterDown":
        assert hidden == ["HealthTargetNotProbed"]
    elif source == "HealthManyTargetsDown":
        # Of one job, and without a target: what is equal is `job` alone. HealthTargetDown hides the rest.
        assert hidden == ["HealthTargetDown"]
    else:
        assert hidden == sorted(HIDES.get(source, []))


@pytest.mark.parametrize("source", sorted(HIDES))
def test_a_cause_hides_nothing_of_another_target(source: str) -> None:
    extra = {"expired": "true"} if source == "HealthCertificateExpiry" else {}
    others = [firing(name, target="u", bundle="b") for name in HIDES[source]]
    cause = firing(source, **extra, bundle="b")
    assert all(len(notifying(RULES, [cause, other])) == 2 for other in others)
    others = [firing(name, job="health-exporter", bundle="b") for name in HIDES[source]]
    assert all(len(notifying(RULES, [cause, other])) == 2 for other in others)


def test_a_loop_of_one_bundle_hides_no_other() -> None:
    left = notifying(RULES, [firing("HealthBundleCrashLooping", bundle="a"), firing("HealthBundleDown", bundle="b")])
    assert len(left) == 2


def test_a_certificate_that_will_expire_hides_nothing() -> None:
    left = notifying(RULES, [firing("HealthCertificateExpiry"), firing("HealthTargetDown")])
    assert names(left) == ["HealthTargetDown"]


def test_a_dead_host_does_not_page_for_twenty_bundles() -> None:
    bundles = [firing("HealthBundleDown", "critical", bundle=f"b{number}") for number in range(20)]
    assert names(notifying(RULES, [firing("HealthTargetDown"), *bundles])) == ["HealthTargetDown"]
    other = firing("HealthBundleDown", "critical", bundle="b", target="other")
    assert notifying(RULES, [firing("HealthTargetDown"), *bundles, other])[1:] == [other]


def test_an_isolated_exporter_pages_once() -> None:
    many = firing("HealthManyTargetsDown")
    consequences = [
        firing(name, target=f"t{number}")
        for number in range(50)
        for name in ("HealthTargetDown", "HealthErrorBudgetBurn", "HealthPryvStorageDown", "HealthCheckFailing")
    ]
    assert notifying(RULES, [many, *consequences]) == [many]
    other = firing("HealthTargetDown", job="health-exporter")
    assert notifying(RULES, [many, *consequences, other]) == [many, other]


def test_a_dead_shard_hides_its_own_targets_only() -> None:
    down = {"alertname": "HealthExporterDown", "severity": "critical", "exporter": "e1:10054"}
    mine = firing("HealthTargetNotProbed", exporter="e1:10054")
    others = firing("HealthTargetNotProbed", exporter="e2:10054")
    nobodys = firing("HealthTargetNotProbed")
    assert notifying(RULES, [down, mine, others, nobodys]) == [down, others]
    assert notifying(RULES, [nobodys]) == [nobodys]


def test_a_dead_target_hides_nothing_of_the_exporter() -> None:
    left = [firing(name) for name in SEVERITY if name.startswith("HealthExporter")]
    assert notifying(RULES, [firing("HealthTargetDown"), *left])[1:] == left


def test_the_fast_burn_hides_the_slow_one() -> None:
    fast, slow = firing("HealthErrorBudgetBurn", "critical"), firing("HealthErrorBudgetBurn", "warning")
    assert notifying(RULES, [fast, slow]) == [fast]


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.name)
def test_what_a_state_notifies_about(state: State) -> None:
    assert sorted(names(notifying(RULES, state.firing()))) == sorted(state.notified)


def test_every_alert_that_a_rule_names_exists() -> None:
    for one in RULES:
        for matcher in (*one.source, *one.target):
            if matcher.label == "alertname":
                assert any(matcher.matches({"alertname": name}) == (matcher.operator in "=~") for name in SEVERITY)
                for name in matcher.value.replace("(Platform|Storage|Registration|Hfs)", "Platform").split("|"):
                    assert name in SEVERITY or ".*" in name


ELSEWISE = {
    # Their own expressions take them out while the cause is there, or their series end with the target.
    "HealthCertificateExpiry": ("HealthTargetDown", "HealthCertificateExpiry", "HealthBundleCrashLooping"),
    "HealthTargetDown": ("HealthBundleCrashLooping", "HealthCronAlertingStuck", "HealthCertificateExpiry"),
    "HealthPryvAccountMissing": ("HealthPryvDnsFailing", "HealthPryvRegistrationDown", "HealthTargetMisconfigured"),
    "HealthSystemComponentDown": ("HealthSystemDegraded",),
    "HealthBundleCrashLooping": ("HealthBundleDown",),
}
# More than four minutes of an hour must be spoilt before these fire, and then comes their own `for`.
WINDOWED = ("HealthErrorBudgetBurn", "HealthBundleRestartsOften", "HealthServiceRestarting")


def test_a_cause_fires_before_its_consequences() -> None:
    """So that the inhibition is in place when the consequence comes; 30 s are two evaluations."""
    for cause, consequences in HIDES.items():
        causes = [
            one
            for one in alerts()
            if one.name == cause and (cause != "HealthCertificateExpiry" or "expired" in one.labels)
        ]
        pages = [one for one in causes if one.labels["severity"] == "critical"] or causes
        latest = max(one.seconds("for") for one in pages)
        for one in alerts():
            if one.name in consequences and one.name not in (*WINDOWED, *ELSEWISE.get(cause, ())):
                assert latest + 30 <= one.seconds("for"), (cause, one.key)


TELL_OF_THE_PAST = {
    ("HealthErrorBudgetBurn", "warning"): "what days have lost, and so of an outage that is over",
    ("HealthBundleRestartsOften", "warning"): "six hours; it is silent for as long after a crash loop",
    ("HealthServiceRestarting", "warning"): "an hour of restarts, which are no consequence of the last one",
    ("HealthCertificateExpiry", "critical", "true"): "a cause: it hides HealthTargetDown, which is silent meanwhile",
}
"""What may outlive an alert that hides it, and why; what it tells of, and not the moment, is what it is for."""


def sides(rule: InhibitRule) -> tuple[list[Rule], list[Rule]]:
    """Return the alerts that are sources of a rule, and those that are targets; one of a whole job is of no target."""
    named = [
        (one, {"alertname": one.name, **one.labels})
        for one in alerts()
        if one.name != "HealthManyTargetsDown" or "target" not in rule.equal
    ]
    source, target = (
        [one for one, labels in named if all(matcher.matches(labels) for matcher in side)]
        for side in (rule.source, rule.target)
    )
    return source, target


@pytest.mark.parametrize("number", range(len(RULES)))
def test_a_cause_outlives_its_consequences(number: int) -> None:
    """Otherwise a consequence would be told of when all is well again: the inhibition ends with the cause."""
    sources, targets = sides(RULES[number])
    assert sources
    assert targets
    for source in sources:
        for target in targets:
            if target.key not in TELL_OF_THE_PAST:
                assert source.seconds("keep_firing_for") > target.seconds("keep_firing_for"), (source.key, target.key)


def test_only_what_would_be_too_late_is_excepted() -> None:
    late = {
        target.key
        for sources, targets in map(sides, RULES)
        for source in sources
        for target in targets
        if source.seconds("keep_firing_for") <= target.seconds("keep_firing_for")
    }
    assert late == set(TELL_OF_THE_PAST)


def test_the_fast_burn_ends_before_what_hides_it() -> None:
    """It is not kept, but remembers the last failure; 30 s are two evaluations."""
    (burn,) = (one for one in alerts() if one.key == ("HealthErrorBudgetBurn", "critical"))
    (memory,) = re.findall(r"max_over_time\(target:probe_error:max\[(\w+)\]\)", burn.expr)
    hiding = [source for sources, targets in map(sides, RULES) if burn in targets for source in sources]
    assert {"HealthTargetDown", "HealthCheckFailing"} < {one.name for one in hiding}
    for one in hiding:
        assert seconds(memory) + 30 <= one.seconds("keep_firing_for"), one.key


def test_severities_have_a_route() -> None:
    routed = {route["matchers"][0]: route["receiver"] for route in CONFIG["route"]["routes"]}
    assert routed == {'severity="critical"': "pages", 'severity="warning"': "tickets", 'severity="info"': "nowhere"}
    receivers = {one["name"]: one for one in CONFIG["receivers"]}
    assert receivers["nowhere"] == {"name": "nowhere"}
    assert CONFIG["route"]["group_by"] == ["alertname", "job", "target"]
    assert CONFIG["route"]["group_wait"] == "45s"
