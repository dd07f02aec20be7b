"""The documents are held to the code: what can be set, asked or scraped has its place in them."""

import argparse
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest

from collectors import COLLECTORS
from collectors.failures import Reason
from collectors.pryv import CHECKS
from collectors.settings import CommonSettings, Model, TargetSettings
from health_exporter import __version__, cli, reference
from health_exporter.config import load
from health_exporter.outcome import PROBE_METRICS

ROOT = Path(__file__).parent.parent
KINDS: dict[str, type[TargetSettings]] = {kind: collector.settings_model for kind, collector in COLLECTORS.items()}
DOCUMENTS = sorted(
    path.relative_to(ROOT)
    for folder in (ROOT, ROOT / "docs")
    for path in folder.glob("*.md")
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


MODELS: list[type[Model]] = [CommonSettings, *KINDS.values()]
KEYS = sorted({key for model in MODELS for key in keys_of(model)})


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


@pytest.mark.parametrize("key", KEYS)
def test_the_example_config_has_the_key(key: str) -> None:
    last = re.escape(key.rpartition(".")[2])
    assert re.search(rf"(^|[\s{{#-]){last}:( |$)", text_of("config.example.yml"), re.MULTILINE)


@pytest.mark.parametrize("key", KEYS)
def test_the_configuration_reference_has_a_row_for_the_key(key: str) -> None:
    rows = [line for line in text_of("docs/configuration.md").splitlines() if line.startswith(f"| `{key}` |")]
    assert len(rows) == 1
    cells = [cell.strip() for cell in rows[0].strip("|").split(" | ")]
    assert len(cells) == 5
    assert all(cells)


def test_the_configuration_reference_has_no_row_for_a_key_that_is_gone() -> None:
    section = section_of("docs/configuration.md", "## Keys of all targets")
    section += section_of("docs/configuration.md", "## Keys of pryv")
    assert set(re.findall(r"^\| `([\w.]+)` \|", section, re.MULTILINE)) == set(KEYS)


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


@pytest.mark.parametrize("metric", [metric.name for metric in COLLECTORS["pryv"].metrics])
def test_the_document_of_pryv_has_a_row_for_the_metric_and_its_labels(metric: str) -> None:
    rows = re.findall(rf"^\| `{metric}` \| (.*?) \|", section_of("docs/pryv.md", "## Metrics"), re.MULTILINE)
    labels = next(known.label_names for known in COLLECTORS["pryv"].metrics if known.name == metric)
    assert rows == [", ".join(f"`{label}`" for label in labels)]


@pytest.mark.parametrize("check", CHECKS)
def test_the_document_of_pryv_has_a_section_and_a_row_for_the_check(check: str) -> None:
    assert "*A pass proves*" in section_of("docs/pryv.md", f"### {check}")
    assert "*It cannot prove*" in section_of("docs/pryv.md", f"### {check}")
    assert f"\n| `{check}` |" in section_of("docs/pryv.md", "## The checks")


@pytest.mark.parametrize("reason", [str(reason) for reason in Reason])
def test_the_document_of_pryv_explains_the_reason(reason: str) -> None:
    assert f"\n| `{reason}` |" in section_of("docs/pryv.md", "## Reasons")


def test_the_documents_name_only_metrics_that_exist() -> None:
    known = {metric.name for table in reference.TABLES.values() for metric in table}
    named = {
        name
        for document in DOCUMENTS
        for name in re.findall(r"\b((?:probe|pryv|health_exporter)_[a-z_]+)\{", text_of(document))
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
