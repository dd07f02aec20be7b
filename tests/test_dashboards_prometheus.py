"""End to end: a real Prometheus that scrapes the demo answers every query of every dashboard."""

import json
import re
import shutil
import urllib.error
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pytest

from tests.programs import ROOT, ask, get, running_demo, running_prometheus, scrape_both_ways, until
from tests.test_dashboards import DASHBOARDS, EXPRESSIONS, used_by

pytestmark = pytest.mark.e2e

VARIABLES = {
    "$__rate_interval": "1m",
    "$__interval": "1m",
    "$__range": "5m",
    "$job": ".*",
    "$target": ".*",
    "$instance": ".*",
    "$name": "",
}

EMPTY = {
    "bundles: Failing now A": "the checks of a bundle host may all pass",
    "system_health: Failing now A": "the checks of a service may all pass",
    "healthchecks: Failing now A": "the checks of a project may all pass",
    "healthchecks: Not up E": "the period of a cron check is not known, and all that are not up may be such",
    "bundles: Restarts over time A": "the first restart of a bundle takes longer than this test waits",
    "bundles: annotation Bundle restarted": "the first restart of a bundle takes longer than this test waits",
    "overview: annotation Bundle restarted": "the first restart of a bundle takes longer than this test waits",
    "overview: Changes A": "no target of the demo changes its verdict",
    "overview: Changes B": "no bundle host of the demo restarts",
    "overview: Changes C": "no service of the demo restarts",
    "overview: Changes D": "the first restart of a bundle takes longer than this test waits",
    "overview: Changes E": "the exporter does not restart",
    **{
        f"{kind}: Probe against its budget C": "a target that is addressed by number needs no name lookup"
        for kind in ("pryv", "bundles", "system_health", "healthchecks")
    },
    "bundles: Hosts B": "one target of the demo speaks TLS, and it is none of these",
    "healthchecks: Projects B": "one target of the demo speaks TLS, and it is none of these",
    "pryv: Deployments B": "one target of the demo speaks TLS, and it is none of these",
    "exporter: Secrets that could not be read A": "no secret file of the demo goes away",
}
"""Queries that may have no data although the demo has their metrics, and why."""


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run the demo and a Prometheus with the recording rules that has scraped it for a while; give its URL."""
    directory = tmp_path_factory.mktemp("prometheus")
    shutil.copy(ROOT / "alerts" / "recording.yml", directory)
    with running_demo() as demo:
        targets = [group["labels"]["__param_target"] for group in json.loads(get(f"http://{demo}/sd"))]
        config = {
            "global": {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "2s"},
            "rule_files": ["recording.yml"],
            "scrape_configs": scrape_both_ways(demo, targets),
        }
        with running_prometheus(directory, config) as (url, _):
            until(lambda: enough(url), 60)
            yield url


def enough(url: str) -> bool:
    """Whether everything has been scraped five times, the last time after the rules were evaluated."""
    scrapes = [float(one["value"][1]) for one in ask(url, "count_over_time(up[5m])")]
    return min(scrapes, default=0) >= 5 and bool(ask(url, "target:probe_error:max"))


def demo_has(url: str, expression: str) -> bool:
    """Whether the demo has targets of the kind, and every metric, an expression asks for."""
    families = set(json.loads(get(f"{url}/api/v1/label/__name__/values"))["data"])
    kinds = set(json.loads(get(f"{url}/api/v1/label/collector/values?match[]=probe_success"))["data"])
    asked = set(re.findall(r'collector="(\w+)"', expression))
    return asked <= kinds and used_by(expression).metrics.keys() <= families


def concrete(expression: str) -> str:
    """Return an expression with the variables of Grafana replaced."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    assert not re.search(r"\$(?!\d)", expression), expression
    return expression


def test_every_variable_is_replaced() -> None:
    named = {f"${one['name']}" for board in DASHBOARDS.values() for one in board["templating"]["list"]}
    assert named - {"$datasource"} <= set(VARIABLES)


@pytest.mark.parametrize(("name", "where", "expr"), EXPRESSIONS, ids=[f"{n}: {w}" for n, w, _ in EXPRESSIONS])
def test_prometheus_answers(prometheus: str, name: str, where: str, expr: str) -> None:
    try:
        answer: list[Any] = ask(prometheus, concrete(expr))
    except urllib.error.HTTPError as error:
        pytest.fail(error.read().decode())
    if f"{name}: {where}" not in EMPTY and demo_has(prometheus, expr):
        assert answer, "no data: wrong, or rightly so and to be listed in EMPTY"


def test_every_query_without_data_still_exists() -> None:
    assert set(EMPTY) <= {f"{name}: {where}" for name, where, _ in EXPRESSIONS}
