"""The rule files read back, and promtool unit tests: made from compact cases, run, and their verdict."""

import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

DIRECTORY = Path(__file__).parents[2] / "alerts"
RULE_FILES = tuple(
    DIRECTORY / f"{name}.yml"
    for name in ("recording", "targets", "pryv", "bundles", "system_health", "healthchecks", "exporter")
)
EVALUATION = 15
SCRAPE = 60

Labels = dict[str, str]
Series = dict[str, str]
"""What is scraped: `name{label="value"}` and a constant, or values in promtool's notation."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a file, as it is written."""

    file: str
    group: str
    written: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The alert's name, or the name of what is recorded."""
        return str(self.written.get("alert") or self.written["record"])

    @property
    def expr(self) -> str:
        return str(self.written["expr"])

    @property
    def labels(self) -> Labels:
        return dict(self.written.get("labels", {}))

    @property
    def annotations(self) -> Labels:
        return dict(self.written.get("annotations", {}))

    @property
    def key(self) -> tuple[str, ...]:
        """What tells rules of one name apart."""
        return (self.name, *(self.labels[name] for name in ("severity", "expired") if name in self.labels))

    def seconds(self, key: str) -> int:
        """Return `for` or `keep_firing_for` in seconds."""
        return seconds(str(self.written.get(key, "0s")))


@cache
def rules() -> tuple[Rule, ...]:
    """Return the rules of all files."""
    return tuple(
        Rule(path.stem, group["name"], written)
        for path in RULE_FILES
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
        for written in group["rules"]
    )


def alerts() -> tuple[Rule, ...]:
    """Return the alerting rules of all files."""
    return tuple(rule for rule in rules() if "alert" in rule.written)


def recordings() -> tuple[Rule, ...]:
    """Return the recording rules."""
    return tuple(rule for rule in rules() if "record" in rule.written)


@cache
def alert(*key: str) -> Rule:
    """Return the one alerting rule with this name, severity and, if it has it, `expired`."""
    (found,) = (rule for rule in alerts() if rule.key == key)
    return found


def seconds(duration: str) -> int:
    """Read a Prometheus duration."""
    unit = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    parts = re.findall(r"(\d+)([smhd])", duration)
    assert "".join(number + letter for number, letter in parts) == duration
    return sum(int(number) * unit[letter] for number, letter in parts)


# --- what a case expects ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Expected:
    """One alert that must be firing: its labels, and what its description shows beside them."""

    rule: Rule
    labels: Labels
    value: str = ""
    reasons: str = ""
    description: str = ""

    def written(self) -> dict[str, Any]:
        """Return it as promtool wants it."""
        labels = self.labels | {name: _render(text, self) for name, text in self.rule.labels.items()}
        annotations = {name: _render(text, self) for name, text in self.rule.annotations.items()}
        if self.description:
            annotations["description"] = self.description
        return {"exp_labels": labels, "exp_annotations": annotations}


_REASONS = re.compile(r'{{ range printf "max by \(check, reason\).*?{{ end }}', re.DOTALL)
_VALUE = re.compile(r"{{ \$value[^}]*}}")
_LABEL = re.compile(r"{{ \$labels\.(\w+) }}")


def _render(template: str, expected: Expected) -> str:
    text = _VALUE.sub(expected.value, _REASONS.sub(expected.reasons, template))
    return _LABEL.sub(lambda found: expected.labels.get(found[1], ""), text)


@dataclass(frozen=True, slots=True)
class UnitTest:
    """One promtool test: series, and what is firing (nothing, for names not expected) at some seconds."""

    name: str
    series: Series
    expect: tuple[tuple[int, tuple[str, ...], tuple[Expected, ...]], ...]
    scrape: int = SCRAPE
    recorded: tuple[tuple[int, str, dict[str, float]], ...] = field(default=())

    def written(self) -> dict[str, Any]:
        """Return it as promtool wants it."""
        return {
            "name": self.name,
            "interval": f"{self.scrape}s",
            "input_series": [{"series": name, "values": values} for name, values in self.series.items()],
            "alert_rule_test": [
                {
                    "eval_time": f"{at}s",
                    "alertname": name,
                    "exp_alerts": [one.written() for one in expected if one.rule.name == name],
                }
                for at, names, expected in self.expect
                for name in names
            ],
            "promql_expr_test": [
                {
                    "eval_time": f"{at}s",
                    "expr": expression,
                    "exp_samples": [{"labels": labels, "value": value} for labels, value in samples.items()],
                }
                for at, expression, samples in self.recorded
            ],
        }


_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def dump(value: Any) -> str:
    """Write YAML, fast."""
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=10_000))


def file_of(*chosen: Rule) -> str:
    """Return the text of a rule file with these rules, and the recordings they read before them."""
    text = " ".join(rule.expr for rule in chosen)
    if ":probe_errors:" in text:
        text += " target:probe_error:max"
    read = [rule for rule in recordings() if rule.name in text and rule not in chosen]
    groups = [
        {"name": f"health-{number}", "rules": [dict(rule.written)]} for number, rule in enumerate((*read, *chosen))
    ]
    return dump({"groups": groups})


def run(directory: Path, files: Mapping[str, str], tests: Iterable[UnitTest], evaluation: int = EVALUATION) -> str:
    """Run promtool on these rule files (name to text) and tests; return what it says, empty if all is well."""
    order = []
    for name, text in files.items():
        (directory / name).write_text(text, encoding="utf-8")
        order += re.findall(r"^ *-? *name: (health-\S+)$", text, re.MULTILINE)
    document = {
        "rule_files": list(files),
        "evaluation_interval": f"{evaluation}s",
        "group_eval_order": order,
        "tests": [test.written() for test in tests],
    }
    (directory / "tests.yml").write_text(dump(document), encoding="utf-8")
    result = subprocess.run(
        ["promtool", "test", "rules", str(directory / "tests.yml")],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return "" if result.returncode == 0 else result.stdout + result.stderr
