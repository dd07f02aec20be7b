"""Expositions: byte for byte what the client library writes, in the format that was asked for."""

import gzip
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import prometheus_client.exposition
import prometheus_client.openmetrics.exposition
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family

from collectors.base import CheckReport, Kind, Metric
from health_exporter.exposition import (
    END,
    OPENMETRICS,
    PLAIN,
    TEXT,
    Format,
    accepts_gzip,
    compress,
    encode_registry,
    encode_target,
    join,
    negotiate,
)
from health_exporter.outcome import Outcome
from health_exporter.simulators.pryv import PryvCore
from tests.support import probe_once, pryv, read, settings

GOLDEN = Path(__file__).parent / "golden"
OPEN = Format(OPENMETRICS, "1.0.0")

LABEL_VALUES = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ['"', "\\", "\n", '\\"\n', "\\n", "%s", "{}", "🎉", "\x00", "\r"]
)
NUMBERS = (
    st.floats()
    | st.integers(-(10**20), 10**20)
    | st.booleans()
    | st.sampled_from(
        [float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1e6, 999999.0, 1e7, 1e22, -1e9, 5e-324, 1e-5]
    )
)


@dataclass(frozen=True)
class Row:
    """A metric and its samples, as (label values, number)."""

    metric: Metric
    samples: list[tuple[tuple[str, ...], float]]


@st.composite
def rows(draw: st.DrawFn) -> list[Row]:
    """Draw families with names that differ."""
    found = []
    for name in draw(st.lists(st.from_regex(r"[a-z][a-z0-9_]{0,8}_x", fullmatch=True), unique=True, max_size=4)):
        kind: Kind = draw(st.sampled_from(("gauge", "counter")))
        labels = draw(st.lists(st.sampled_from(["zone", "a", "check", "Upper", "_b", "uv"]), unique=True, max_size=3))
        text = draw(LABEL_VALUES)
        values = st.tuples(*[LABEL_VALUES] * len(labels))
        samples = draw(st.lists(st.tuples(values, NUMBERS), min_size=1, max_size=4))
        full = f"{name}_total" if kind == "counter" else name
        found.append(Row(Metric(full, kind, text, tuple(labels), common=()), samples))
    return found


class Registry:
    """The same families for the client library."""

    def __init__(self, rows: list[Row]) -> None:
        self._rows = rows

    def collect(self) -> Iterator[Family]:
        for row in self._rows:
            kind = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily}[row.metric.kind]
            family = kind(row.metric.name, row.metric.help, labels=row.metric.labels)
            for values, number in row.samples:
                family.add_metric(values, number)
            yield family


def ours(found: list[Row], form: Format) -> bytes:
    """Return what we write for the rows, without what every target has."""
    report = CheckReport("c")
    outcome = Outcome(
        settings("pryv", url="http://localhost:1", username="healthmetrics01", token="x"), (report,), (), 0.0
    )
    blocks = {}
    for row in found:
        one = CheckReport("c")
        for number, (values, value) in enumerate(row.samples):
            # Each under a key of its own: two samples may have one label set here, as the library lets them.
            sample = type("S", (), {"metric": row.metric, "values": values, "number": value})()
            one.samples[row.metric, (str(number),)] = sample
        written = encode_target(Outcome(outcome.settings, (one,), (), 0.0), 1.0, static_labels=False)
        blocks[row.metric] = written[row.metric]
    return join([blocks], form)


@given(rows())
def test_every_family_is_written_as_the_library_writes_it(found: list[Row]) -> None:
    registry: Any = Registry(found)
    assert ours(found, PLAIN) == prometheus_client.exposition.generate_latest(registry)
    openmetrics = prometheus_client.openmetrics.exposition.generate_latest(registry)  # type: ignore[no-untyped-call]
    assert ours(found, OPEN) + END == openmetrics


def outcome_of(name: str, *checks: str, **keys: Any) -> Outcome:
    """Return a healthy outcome of a target."""
    reports = []
    for check in checks:
        report = CheckReport(check)
        report.duration = 0.5
        report.finish(None)
        reports.append(report)
    target = settings(
        "pryv",
        name=name,
        url="http://localhost:1",
        username="healthmetrics01",
        token="x",
        labels=keys.get("labels", {}),
    )
    return Outcome(target, tuple(reports), (), 1.5)


@pytest.mark.parametrize("form", [PLAIN, OPEN])
def test_every_family_stands_once_however_many_targets_there_are(form: Format) -> None:
    blocks = [encode_target(outcome_of(name, "a", "b"), 9.5, static_labels=True) for name in ("one", "two", "three")]
    text = join(blocks, form).decode()
    headings = [line for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(headings) == len(set(headings))
    samples = read(text + ("# EOF\n" if form is OPEN else ""), openmetrics=form is OPEN)
    assert sum(name == "probe_check_success" for name, _ in samples) == 6
    lines = [line.partition("{")[0] for line in text.splitlines() if not line.startswith("#")]
    assert [name for at, name in enumerate(lines) if name != lines[at - 1]] == list(dict.fromkeys(lines))


def test_nothing_probed_is_an_empty_exposition() -> None:
    assert join([], PLAIN) == b""


@pytest.mark.parametrize(("static", "wanted"), [(True, {"team": 'co"re\n'}), (False, {})])
def test_static_labels_stand_on_target_info_when_asked_for(static: bool, wanted: dict[str, str]) -> None:
    blocks = encode_target(outcome_of("t", "a", labels={"team": 'co"re\n'}), 9.5, static_labels=static)
    samples = read(join([blocks], PLAIN).decode())
    infos = [dict(labels) for name, labels in samples if name == "probe_target_info"]
    assert infos == [{"collector": "pryv", "target": "t", "url": "http://localhost:1", **wanted}]
    assert not [name for name, labels in samples if "team" in dict(labels) and name != "probe_target_info"]


@pytest.mark.parametrize("form", [PLAIN, OPEN])
def test_the_registry_is_written_without_an_end_mark(form: Format) -> None:
    registry = CollectorRegistry()
    Counter("things", "Things", registry=registry).inc()
    body = encode_registry(registry, form)
    assert END not in body
    text = (body + (END if form is OPEN else b"")).decode()
    assert read(text, openmetrics=form is OPEN)["things_total", frozenset()] == 1


# --- negotiation ----------------------------------------------------------------------------------------------------

PROMETHEUS_2 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"  # noqa: E501
PROMETHEUS_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"  # noqa: E501
NEW_TEXT = Format(TEXT, "1.0.0")


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (None, PLAIN),
        ("", PLAIN),
        ("*/*", PLAIN),
        ("text/*", PLAIN),
        ("text/plain", PLAIN),
        ("text/plain;version=0.0.4", PLAIN),
        (PROMETHEUS_2, OPEN),
        (PROMETHEUS_3, Format(OPENMETRICS, "1.0.0", "allow-utf-8")),
        ("application/openmetrics-text", OPEN),
        ("APPLICATION/OpenMetrics-Text; Version=1.0.0", OPEN),
        ('application/openmetrics-text;version="1.0.0"', OPEN),
        ("application/openmetrics-text ; version = 1.0.0 ; charset=utf-8", OPEN),
        ("application/openmetrics-text;version=0.0.1", PLAIN),
        ("application/openmetrics-text;version=2.0.0", PLAIN),
        ("application/openmetrics-text;escaping=nonsense", OPEN),
        ("application/openmetrics-text;escaping=underscores", Format(OPENMETRICS, "1.0.0", "underscores")),
        ("text/plain;version=1.0.0", NEW_TEXT),
        ("text/plain;version=1.0.0;escaping=allow-utf-8", Format(TEXT, "1.0.0", "allow-utf-8")),
        ("text/plain;q=0.1,application/openmetrics-text;q=0.9", OPEN),
        ("text/plain;q=0.9,application/openmetrics-text;q=0.1", PLAIN),
        ("text/plain,application/openmetrics-text", PLAIN),
        ("application/openmetrics-text;q=0,text/plain;version=1.0.0;q=0.001", NEW_TEXT),
        ("application/openmetrics-text;q=0", PLAIN),
        ("application/openmetrics-text;q=1.000", OPEN),
        ("application/openmetrics-text;q=1.001", PLAIN),
        ("application/openmetrics-text;q=2", PLAIN),
        ("application/openmetrics-text;q=nan", PLAIN),
        ("application/openmetrics-text;q=", PLAIN),
        ("application/json", PLAIN),
        ("application/json, application/openmetrics-text;q=0.1", OPEN),
        ("text/plain;version=abc", PLAIN),
        ("text/plain;version=1..0", PLAIN),
        ("text/plain;version", PLAIN),
        ('text/plain;version="1.0.0', PLAIN),
        (";;;", PLAIN),
        (",,,", PLAIN),
        (", application/openmetrics-text ,", OPEN),
        ("x" * 100_000, PLAIN),
        ("text/plain;" * 10_000, PLAIN),
        ("application/openmetrics-text;q=٠", PLAIN),  # noqa: RUF001 - a digit, but not of ASCII
        ("täxt/plain;vérsion=1.0.0", PLAIN),
    ],
)
def test_the_accept_header_decides_the_format(accept: str | None, wanted: Format) -> None:
    assert negotiate(accept) == wanted


@given(
    st.text()
    | st.lists(st.sampled_from([*'*/;,=."\\ q01', "text", "plain", "version", OPENMETRICS, TEXT])).map("".join)
)
@example("text/plain;version=abc")
def test_no_accept_header_is_an_error(accept: str) -> None:
    form = negotiate(accept)
    assert re.fullmatch(r"[a-z/-]+; version=[0-9.]+; charset=utf-8(; escaping=[a-z0-9-]+)?", form.content_type)
    assert accepts_gzip(accept) in {True, False}


@pytest.mark.parametrize(
    ("form", "wanted"),
    [
        (PLAIN, "text/plain; version=0.0.4; charset=utf-8"),
        (OPEN, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        (Format(TEXT, "1.0.0", "dots"), "text/plain; version=1.0.0; charset=utf-8; escaping=dots"),
    ],
)
def test_the_content_type_says_the_format(form: Format, wanted: str) -> None:
    assert form.content_type == wanted


@pytest.mark.parametrize(
    ("accept_encoding", "wanted"),
    [
        (None, False),
        ("", False),
        ("identity", False),
        ("br, deflate", False),
        ("gzip", True),
        ("GZIP", True),
        ("x-gzip", True),
        ("*", True),
        ("gzip;q=0", False),
        ("gzip;q=0.0", False),
        ("gzip; q=0.000", False),
        ("gzip;q=0.001", True),
        ("gzip;q=1.0", True),
        ("*;q=0", False),
        ("identity;q=1, *;q=0", False),
        ("*;q=0, gzip", True),
        ("gzip;q=0, *", False),
        ("*, gzip;q=0", False),
        ("deflate, gzip;q=0.5, *;q=0", True),
        ("gzipped", False),
    ],
)
def test_gzip_is_used_where_it_is_accepted(accept_encoding: str | None, wanted: bool) -> None:
    assert accepts_gzip(accept_encoding) is wanted


@given(st.binary(max_size=5000))
def test_what_is_compressed_can_be_read_again(body: bytes) -> None:
    assert gzip.decompress(compress(body)) == body


# --- golden files ---------------------------------------------------------------------------------------------------

FLEETING = re.compile(
    r"^(probe_duration_seconds|probe_check_duration_seconds|probe_check_http_duration_seconds"
    r"|probe_check_asked_timestamp_seconds|probe_dns_lookup_time_seconds|pryv_clock_skew_seconds)(\{.*\}) \S+$",
    re.MULTILINE,
)


async def golden_of(core: PryvCore) -> str:
    """Return the exposition of a core, with what differs from run to run made the same."""
    target = pryv(core.url, name="pryv-eu", labels={"team": "core"})
    outcome = await probe_once(target)
    text = join([encode_target(outcome, 9.5, static_labels=True)], PLAIN).decode()
    return FLEETING.sub(r"\1\2 1.0", text).replace(core.url, "http://127.0.0.1:3000")


@pytest.mark.parametrize("name", ["pryv-healthy", "pryv-failing"])
async def test_the_exposition_of_a_target_is_the_golden_one(name: str, update_golden: bool) -> None:
    async with PryvCore() as core:
        if name == "pryv-failing":
            core.faults.hfs_worker = "dead"
            core.faults.platform = "refused"
            core.faults.account = "deleted"
        text = await golden_of(core)
    path = GOLDEN / f"{name}.prom"
    if update_golden:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.e2e
@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.prom")), ids=lambda path: path.stem)
def test_promtool_has_nothing_against_the_golden_files(path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    checked = subprocess.run([promtool, "check", "metrics"], input=path.read_bytes(), capture_output=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
