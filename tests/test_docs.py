"""The documents are held to the code: what can be set, asked or scraped has its place in them."""

import argparse
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest

from collectors import COLLECTORS
from collectors.base import Metric
from collectors.failures import Reason
from collectors.settings import CommonSettings, Model, TargetSettings
from health_exporter import __version__, cli, reference
from health_exporter.config import load
from health_exporter.outcome import PROBE_METRICS

ROOT = Path(__file__).parent.parent
KINDS: dict[str, type[TargetSettings]] = {kind: collector.settings_model for kind, collector in COLLECTORS.items()}
DOCUMENTS = sorted(
    path.relative_to(ROOT)
    for folder, pattern in ((ROOT, "*.md"), (ROOT / "docs", "*.md"), (ROOT / "deploy", "**/*.md"))
    for path in folder.glob(pattern)
    if not path.name.startswith(".")
)


@cache
def text_of(name: str | Path) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def keys_of(model: type[Model], prefix: str = "") -> Iterator[str]:
    """Yield every key of a model and of the models in it, as a dotted path."""
    for key, field in model.model_fields.items():
        yield prefix + key
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, Model):
                yield from keys_of(kind, f"{prefix}{key}.")


COMMON = sorted({*keys_of(CommonSettings), *keys_of(TargetSettings)})


def own_keys_of(model: type[TargetSettings]) -> list[str]:
    """Return the keys, as dotted paths, that a kind has for itself or gives another default."""
    declared = set(inspect.get_annotations(model)) - {"collector"}
    return [key for key in keys_of(model) if key.partition(".")[0] in declared]


OWN_KEYS = [(kind, key) for kind, model in KINDS.items() for key in own_keys_of(model)]
METRICS = [(kind, metric) for kind, collector in COLLECTORS.items() for metric in collector.metrics]
EXAMPLE = "config.example.yml"


def check_names_of(kind: str) -> list[str]:
    """Return every check a kind can make: those that can be listed, or those its targets always have."""
    model = KINDS[kind]
    if "checks" not in model.model_fields:
        return list(model.model_validate({"name": "t", "collector": kind, "url": "http://localhost"}).check_names())
    return list(inspect.getmodule(model).CHECKS)  # type: ignore[union-attr]


CHECKS = [(kind, check) for kind in COLLECTORS for check in check_names_of(kind)]


def example_of(kind: str) -> str:
    """Return the targets of a kind in the example config, as they are written."""
    targets = re.split(r"^(?=  - name: )", text_of(EXAMPLE), flags=re.MULTILINE)[1:]
    return "".join(target for target in targets if f"\n    collector: {kind} " in target.replace("\n", " \n"))


def has_key(text: str, key: str) -> bool:
    """Return whether targets have the key (a dotted path) in its place, in use or behind a #."""
    outer, _, last = key.rpartition(".")
    if not outer:
        return re.search(rf"^  (?:- |  (?:# )?){last}:", text, re.MULTILINE) is not None
    blocks = re.findall(rf"^    (?:# )?{outer}:.*\n((?:    (?:  |#   ).*\n)*)", text, re.MULTILINE)
    return any(re.search(rf"^    (?:  |#   ){last}:", block, re.MULTILINE) for block in blocks)


def rows_of(section: str, name: str) -> list[list[str]]:
    """Return the cells of the rows of a table that begin with this name."""
    rows = [line for line in section.splitlines() if line.startswith(f"| `{name}` |")]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def flags_and_commands() -> Iterator[tuple[str, list[str]]]:
    """Yield every command ("" is the program itself) with its flags."""
    parsers: dict[str, Any] = {"": cli._parser()}
    for action in parsers[""]._actions:
        if isinstance(action, argparse._SubParsersAction):
            parsers |= action.choices
    for command, parser in parsers.items():
        yield command, [flag for action in parser._actions for flag in action.option_strings if flag.startswith("--")]


PARSED = dict(flags_and_commands())


def anchors_of(document: str | Path) -> set[str]:
    """Return the anchors of the headings, as GitHub makes them."""
    prose = re.sub(r"^```.*?^```", "", text_of(document), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ +(.+?) *$", prose, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links_of(document: str | Path) -> list[str]:
    prose = re.sub(r"^ *```.*?^ *```", "", text_of(document), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose))


def section_of(document: str, heading: str) -> str:
    """Return the text below a heading, up to the next one that is not below it."""
    level = len(heading) - len(heading.lstrip("#"))
    begin = text_of(document).index(f"\n{heading}\n")
    following = re.compile(rf"^#{{1,{level}}} ", re.MULTILINE).search(text_of(document), begin + len(heading) + 2)
    return text_of(document)[begin : following.start() if following else None]


def test_the_example_config_is_valid_and_without_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.environ", {})
    config = load(ROOT / "config.example.yml", KINDS, reference.RESERVED_LABELS)
    assert config.targets
    assert config.warnings == ()


def test_the_example_config_has_a_target_of_every_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.environ", {})
    config = load(ROOT / EXAMPLE, KINDS, reference.RESERVED_LABELS)
    assert {target.collector for target in config.targets} == set(KINDS)
    assert all(example_of(kind) for kind in KINDS)


@pytest.mark.parametrize("key", COMMON)
def test_the_example_config_has_the_key_of_all_targets(key: str) -> None:
    assert has_key(text_of(EXAMPLE), key)


@pytest.mark.parametrize(("kind", "key"), OWN_KEYS)
def test_the_example_config_has_the_key_at_a_target_of_its_kind(kind: str, key: str) -> None:
    assert has_key(example_of(kind), key)


@pytest.mark.parametrize(
    ("heading", "key"),
    [*(("all targets", key) for key in COMMON), *OWN_KEYS],
)
def test_the_configuration_reference_has_one_whole_row_for_the_key(heading: str, key: str) -> None:
    (cells,) = rows_of(section_of("docs/configuration.md", f"## Keys of {heading}"), key)
    assert len(cells) == 5
    assert all(cells)


@pytest.mark.parametrize("heading", ["all targets", *KINDS])
def test_the_configuration_reference_has_no_row_for_a_key_that_is_gone(heading: str) -> None:
    section = section_of("docs/configuration.md", f"## Keys of {heading}")
    known = {key for kind, key in OWN_KEYS if kind == heading} if heading in KINDS else set(COMMON)
    assert set(re.findall(r"^\| `([\w.]+)` \|", section, re.MULTILINE)) == known


@pytest.mark.parametrize("flag", sorted({flag for flags in PARSED.values() for flag in flags}))
def test_the_readme_has_a_row_for_the_flag(flag: str) -> None:
    section = section_of("README.md", "## Commands and flags")
    assert re.search(rf"^\| [^|]*`{re.escape(flag)}[` ]", section, re.MULTILINE)


def test_the_readme_names_no_flag_that_is_gone() -> None:
    section = section_of("README.md", "## Commands and flags")
    named = re.findall(r"^\| `(--[a-z.-]+)", section, re.MULTILINE)
    assert set(named) <= {flag for flags in PARSED.values() for flag in flags}


@pytest.mark.parametrize("command", sorted(set(PARSED) - {""}))
def test_the_readme_has_a_row_for_the_command(command: str) -> None:
    section = section_of("README.md", "## Commands and flags")
    assert re.search(rf"^\| `health-exporter \[?{command}\b", section, re.MULTILINE)


@pytest.mark.parametrize("kind", COLLECTORS)
def test_every_kind_has_a_document_that_the_readme_links(kind: str) -> None:
    assert (ROOT / "docs" / f"{kind}.md").is_file()
    assert f"docs/{kind}.md" in links_of("README.md")


@pytest.mark.parametrize(("kind", "metric"), METRICS, ids=lambda part: getattr(part, "name", None))
def test_the_document_of_the_kind_has_one_row_for_the_metric_and_its_labels(kind: str, metric: Metric) -> None:
    (cells,) = rows_of(section_of(f"docs/{kind}.md", "## Metrics"), metric.name)
    assert cells[1] == ", ".join(f"`{label}`" for label in metric.label_names)
    assert all(cells)


@pytest.mark.parametrize("kind", COLLECTORS)
def test_the_document_of_the_kind_has_no_row_for_a_metric_that_is_gone(kind: str) -> None:
    named = re.findall(r"^\| `(\w+)` \|", section_of(f"docs/{kind}.md", "## Metrics"), re.MULTILINE)
    assert set(named) == {metric.name for metric in COLLECTORS[kind].metrics}


@pytest.mark.parametrize(("kind", "check"), CHECKS)
def test_the_document_of_the_kind_has_a_section_and_a_row_for_the_check(kind: str, check: str) -> None:
    assert "*A pass proves*" in section_of(f"docs/{kind}.md", f"### {check}")
    assert "*It cannot prove*" in section_of(f"docs/{kind}.md", f"### {check}")
    assert len(rows_of(section_of(f"docs/{kind}.md", "## The checks").partition("\n### ")[0], check)) == 1


@pytest.mark.parametrize("kind", COLLECTORS)
def test_the_document_of_the_kind_explains_every_reason_in_their_order(kind: str) -> None:
    named = re.findall(r"^\| `(\w+)` \|", section_of(f"docs/{kind}.md", "## Reasons"), re.MULTILINE)
    assert named == [str(reason) for reason in Reason]


def test_the_documents_name_only_metrics_that_exist() -> None:
    known = {metric.name for table in reference.TABLES.values() for metric in table}
    known |= {
        f"{metric.name}{part}"
        for table in reference.TABLES.values()
        for metric in table
        if metric.kind == "histogram"
        for part in ("_bucket", "_sum", "_count")
    }
    families = "probe|pryv|bundle|system_health|healthchecks|health_exporter"
    named = {
        name
        for document in DOCUMENTS
        for name in re.findall(rf"(?<![\w:])((?:{families})_[a-z_]+)\{{", text_of(document))
    }
    assert {metric.name for metric in PROBE_METRICS} & named
    assert named <= known


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_links_lead_to_files_and_headings(document: Path) -> None:
    for link in links_of(document):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / document.parent / path).resolve() if path else ROOT / document
        assert target.exists(), link
        if anchor:
            assert anchor in anchors_of(target), link


def test_the_changelog_has_this_version() -> None:
    assert re.search(rf"^## \[{re.escape(__version__)}\] - \d{{4}}-\d\d-\d\d$", text_of("CHANGELOG.md"), re.MULTILINE)
