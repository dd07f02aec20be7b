"""The dashboards are what their program writes, are whole, and ask only for what the exporter has."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards import generate
from health_exporter.reference import TABLES

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "dashboards").glob("*.json"))
DASHBOARDS: dict[str, dict[str, Any]] = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in FILES}
RULES = yaml.safe_load((ROOT / "alerts" / "recording.yml").read_text(encoding="utf-8"))

FROM_THE_SCRAPE = {"job", "instance", "pod", "exporter"}
WITHOUT_PANEL: dict[str, str] = {}
"""Families that no panel shows, and why."""

NO_UNIT = ("row", "text")


def labels_of_metrics() -> dict[str, set[str]]:
    """Return the labels of every metric there can be."""
    known = {metric.name: set(metric.label_names) for table in TABLES.values() for metric in table}
    histograms = {
        metric.name: metric.label_names for table in TABLES.values() for metric in table if metric.kind == "histogram"
    }
    for name, labels in histograms.items():
        known |= {f"{name}_bucket": {*labels, "le"}, f"{name}_sum": set(labels), f"{name}_count": set(labels)}
    recorded = {rule["record"] for group in RULES["groups"] for rule in group["rules"]}
    known |= {name: {"target", "collector"} | ({"bundle"} if "bundle" in name else set()) for name in recorded}
    process = ("start_time_seconds", "cpu_seconds_total", "resident_memory_bytes", "open_fds", "max_fds")
    known |= {f"process_{name}": set() for name in process}
    known |= {f"python_gc_{name}": {"generation"} for name in ("collections_total", "objects_uncollectable_total")}
    return known | {"up": set()}


LABELS = labels_of_metrics()


# --- what is in a dashboard -----------------------------------------------------------------------------------------


def panels_of(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every panel, those in collapsed rows too."""
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", ())


def strings_of(document: Any) -> Iterator[str]:
    """Yield every text in a document."""
    if isinstance(document, str):
        yield document
    elif isinstance(document, dict | list):
        for inner in document.values() if isinstance(document, dict) else document:
            yield from strings_of(inner)


def expressions_of(dashboard: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield every expression of panels, annotations and variables, with the name of where it stands."""
    for panel in panels_of(dashboard):
        for target in panel.get("targets", ()):
            yield f"{panel['title']} {target['refId']}", target["expr"]
    for annotation in dashboard["annotations"]["list"]:
        if "expr" in annotation:
            yield f"annotation {annotation['name']}", annotation["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            found = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
            assert found, variable["name"]
            yield f"variable {variable['name']}", f"max by ({found[2]}) ({found[1]})"


@dataclass
class Used:
    """What an expression asks for: metrics with the labels of their matchers, and the labels it groups by."""

    metrics: dict[str, set[str]] = field(default_factory=dict)
    grouping: set[str] = field(default_factory=set)
    made: set[str] = field(default_factory=set)


TOKEN = re.compile(
    r"""
    (?P<text>"(?:[^"\\]|\\.)*") | (?P<window>\[[^]]*\]) | (?P<open>\{) | (?P<close>\})
    | (?P<list>\b(?:by|without|on|ignoring|group_left|group_right)\s*\((?P<labels>[^)]*)\))
    | (?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*) (?P<call>\s*\()?
    """,
    re.VERBOSE,
)
WORDS = {"and", "or", "unless", "bool", "offset", "max", "min", "sum", "count", "group", "topk"}


def used_by(expression: str) -> Used:
    """Read an expression as far as the names in it go."""
    used = Used()
    matchers: set[str] | None = None
    metric = ""
    for token in TOKEN.finditer(expression):
        if token["labels"] is not None:
            used.grouping |= {label.strip() for label in token["labels"].split(",")} - {""}
        elif token["open"]:
            matchers = used.metrics.setdefault(metric, set())
        elif token["close"]:
            matchers, metric = None, ""
        elif token["name"] and matchers is not None:
            matchers.add(token["name"])
        elif token["name"] and not token["call"] and token["name"] not in WORDS:
            metric = token["name"]
            used.metrics.setdefault(metric, set())
    for names in re.findall(r'__name__=~"([^"]*)"', expression):
        used.metrics |= {name: set() for name in names.split("|")}
    used.metrics.pop("", None)
    used.made = set(re.findall(r', "(\w+)", "[^"]*", "\w*", "[^"]*"\)', expression))
    return used


def test_expressions_are_read() -> None:
    used = used_by(
        'max without (pod) (rate(a_total{x="b{c}",y=~"d"}[5m])) * on (k) group_left () b > 1'
        ' or label_replace(label_replace(c, "w", "$1", "k", "(.*)"), "v", "", "", "")'
    )
    assert used == Used({"a_total": {"x", "y"}, "b": set(), "c": set()}, {"pod", "k"}, {"v", "w"})


# --- the tests ------------------------------------------------------------------------------------------------------

EXPRESSIONS = [(name, where, expr) for name, board in DASHBOARDS.items() for where, expr in expressions_of(board)]
PANELS = [(name, panel) for name, board in DASHBOARDS.items() for panel in panels_of(board)]


def test_the_files_are_what_the_program_writes() -> None:
    assert {file.name: file.read_text(encoding="utf-8") for file in FILES} == generate.rendered()


def test_the_program_writes_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "__file__", str(tmp_path / "generate.py"))
    generate.main()
    assert {file.name for file in tmp_path.iterdir()} == {file.name for file in FILES}


def test_uids_and_titles_are_unique() -> None:
    assert len({board["uid"] for board in DASHBOARDS.values()}) == len(DASHBOARDS)
    assert len({board["title"] for board in DASHBOARDS.values()}) == len(DASHBOARDS)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_has_what_grafana_needs(name: str) -> None:
    board = DASHBOARDS[name]
    assert board["uid"] == f"health-exporter-{name}"
    assert (board["schemaVersion"], board["tags"]) == (41, ["health-exporter"])
    assert board["description"]
    assert "id" not in board
    ids = [panel["id"] for panel in panels_of(board)]
    assert ids == list(range(1, len(ids) + 1))
    titles = Counter(panel["title"] for panel in panels_of(board) if panel["type"] != "row")
    assert set(titles.values()) == {1}, titles.most_common(1)
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    for wanted in ("job", "target"):
        assert (variables[wanted]["multi"], variables[wanted]["includeAll"]) == (True, True)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_lie_beside_each_other(name: str) -> None:
    # What a collapsed row hides is placed below it when it is opened, and so may lie where the next row lies.
    board = DASHBOARDS[name]
    for together in (board["panels"], *(panel["panels"] for panel in board["panels"] if panel.get("panels"))):
        places = [(panel["title"], panel["gridPos"]) for panel in together]
        for title, at in places:
            assert at["x"] >= 0, title
            assert at["x"] + at["w"] <= 24, title
            assert at["w"] > 0, title
            assert at["h"] > 0, title
        for (one, a), (other, b) in combinations(places, 2):
            beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
            below = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
            assert beside or below, (one, other)


@pytest.mark.parametrize(
    ("name", "panel"), PANELS, ids=lambda value: value if isinstance(value, str) else value["title"]
)
def test_a_panel_is_whole(name: str, panel: dict[str, Any]) -> None:
    assert panel["title"]
    if panel["type"] in NO_UNIT:
        return
    assert len(panel["description"]) > 20
    assert panel["fieldConfig"]["defaults"]["unit"]
    refs = Counter(target["refId"] for target in panel["targets"])
    assert refs
    assert set(refs.values()) == {1}
    for source in (panel, *panel["targets"]):
        assert source["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    for target in panel["targets"]:
        assert target["instant"] != target["range"]


def test_every_source_is_the_variable() -> None:
    for board in DASHBOARDS.values():
        for one in (*board["annotations"]["list"], *board["templating"]["list"]):
            if "datasource" in one and not one.get("builtIn"):
                assert one["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@pytest.mark.parametrize(("name", "where", "expr"), EXPRESSIONS, ids=[f"{n}: {w}" for n, w, _ in EXPRESSIONS])
def test_metrics_and_labels_exist(name: str, where: str, expr: str) -> None:
    used = used_by(expr)
    assert used.metrics
    assert set(used.metrics) <= set(LABELS)
    for metric, matched in used.metrics.items():
        assert matched <= LABELS[metric] | FROM_THE_SCRAPE, metric
    available = set().union(*(LABELS[metric] for metric in used.metrics)) | used.made | FROM_THE_SCRAPE
    assert used.grouping <= available


@pytest.mark.parametrize(
    ("name", "panel"), PANELS, ids=lambda value: value if isinstance(value, str) else value["title"]
)
def test_legends_and_columns_are_labels_that_exist(name: str, panel: dict[str, Any]) -> None:
    everything: set[str] = set()
    for target in panel.get("targets", ()):
        used = used_by(target["expr"])
        labels = set().union(*(LABELS[metric] for metric in used.metrics)) | used.made | FROM_THE_SCRAPE
        assert set(re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", ""))) <= labels
        everything |= labels
    linked = {
        label
        for text in strings_of(panel)
        for label in re.findall(r"\$\{__(?:data\.fields|field\.labels)\.(\w+)\}", text)
    }
    assert linked <= everything
    for step in panel.get("transformations", ()):
        if step["id"] == "organize":
            columns = {name for name in step["options"]["indexByName"] if not name.startswith("Value")}
            assert columns <= everything
            assert not columns & set(step["options"]["excludeByName"])
            shown = step["options"]["renameByName"].values()
            for sorting in panel["options"]["sortBy"]:
                assert sorting["displayName"] in {*shown, *columns}


@pytest.mark.parametrize(("name", "where", "expr"), EXPRESSIONS, ids=[f"{n}: {w}" for n, w, _ in EXPRESSIONS])
def test_targets_are_told_apart_by_target_alone(name: str, where: str, expr: str) -> None:
    if name != "exporter":
        about_targets = re.sub(r"\b(?:process|python)_\w+|without \([^)]*\)|\(job, instance\)", "", expr)
        assert not re.search(r"\binstance\b", about_targets)


def test_every_family_is_in_a_panel() -> None:
    shown = {
        metric
        for _, panel in PANELS
        for target in panel.get("targets", ())
        for metric in used_by(target["expr"]).metrics
    }
    families = {metric.name for table in TABLES.values() for metric in table}
    missing = {name for name in families if not {name, f"{name}_bucket"} & shown}
    assert missing == set(WITHOUT_PANEL)


def test_links_lead_to_dashboards_that_exist() -> None:
    kinds = [kind for kind in TABLES if kind not in ("Every target", "The exporter")]
    assert tuple(kinds) == generate.KINDS
    uids = {board["uid"] for board in DASHBOARDS.values()}
    found = 0
    for board in DASHBOARDS.values():
        assert {tag for link in board["links"] for tag in link["tags"]} == {"health-exporter"}
        for url in (text for text in strings_of(board) if text.startswith("/d/")):
            uid, _, parameters = url.removeprefix("/d/").partition("?")
            linked = {re.sub(r"\$\{[\w.]*collector\}", kind, uid) for kind in kinds}
            assert linked <= uids
            assert "${__url_time_range}" in parameters
            found += 1
    assert found
    worst = [panel for panel in panels_of(DASHBOARDS["overview"]) if panel["type"] in ("table", "state-timeline")]
    assert all(any(text.startswith("/d/") for text in strings_of(panel)) for panel in worst)


def test_restarts_are_marked() -> None:
    for board in DASHBOARDS.values():
        marks = {annotation["name"] for annotation in board["annotations"]["list"]}
        assert "Exporter started" in marks
    overview = {annotation["name"] for annotation in DASHBOARDS["overview"]["annotations"]["list"]}
    assert {"Bundle host started", "Service started", "Bundle restarted"} <= overview


def test_the_document_names_every_dashboard() -> None:
    document = (ROOT / "docs" / "dashboards.md").read_text(encoding="utf-8")
    for file in FILES:
        assert f"`{file.name}`" in document
