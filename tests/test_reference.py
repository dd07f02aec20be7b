"""The metric reference, and what every metric table keeps to."""

import re
from pathlib import Path

import pytest

from collectors.base import Metric
from collectors.failures import Reason
from health_exporter import reference
from health_exporter.config import TAKEN_LABELS

METRICS = [metric for table in reference.TABLES.values() for metric in table]
DOCUMENT = Path(__file__).parents[1] / "docs" / "metrics.md"
KEPT_FOR_OTHERS = set(TAKEN_LABELS)


def test_the_document_is_the_reference() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == reference.markdown()


def test_every_reason_has_a_meaning_in_the_order_of_precedence() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|$", reference.markdown(), re.MULTILINE)
    assert [name for name, _ in rows] == [str(reason) for reason in Reason]
    assert all(meaning.strip() for _, meaning in rows)


def test_every_metric_stands_in_the_reference_once() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (?:gauge|counter|histogram) \|", reference.markdown(), re.MULTILINE)
    assert rows == [metric.name for metric in METRICS]


def test_no_row_of_the_reference_breaks_its_table() -> None:
    for line in reference.markdown().splitlines():
        if line.startswith("| `"):
            assert len(re.findall(r"(?<!\\)\|", line)) in {3, 5}


def test_metric_names_are_unique() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_metric_keeps_to_the_rules(metric: Metric) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]*", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert metric.help.strip() == metric.help != ""
    assert len(set(metric.label_names)) == len(metric.label_names)
    for label in metric.label_names:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", label)
        assert not label.startswith("__")
        assert label not in KEPT_FOR_OTHERS


def test_labels_of_metrics_are_reserved() -> None:
    assert {label for metric in METRICS for label in metric.label_names} == reference.RESERVED_LABELS
    assert {"target", "collector", "check", "reason", "phase", "url"} <= reference.RESERVED_LABELS
