"""End to end: a real Prometheus scrapes the demo, and promtool has nothing to say about it."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.programs import ask, get, program, query, running_demo, running_prometheus, scrape_both_ways, until

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def demo() -> Iterator[str]:
    with running_demo() as address:
        yield address


@pytest.mark.parametrize("path", ["/metrics", "/metrics/exporter", "/probe?target=pryv-core-b"])
def test_promtool_has_nothing_to_say(demo: str, path: str) -> None:
    exposition = get(f"http://{demo}{path}")
    result = subprocess.run(
        [program("promtool"), "check", "metrics"],
        input=exposition,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.fixture(scope="module")
def prometheus(demo: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Run a Prometheus that scrapes /metrics and each /probe of the demo; give its URL and log."""
    scrapes = scrape_both_ways(demo, ["pryv-single", "pryv-core-a", "pryv-core-b"])
    intervals = {"scrape_interval": "2s", "scrape_timeout": "2s"}
    directory = tmp_path_factory.mktemp("prometheus")
    with running_prometheus(directory, {"global": intervals, "scrape_configs": scrapes}) as running:
        yield running


def test_prometheus_scrapes_the_demo_and_rejects_nothing(prometheus: tuple[str, Path]) -> None:
    url, log = prometheus

    def scraped_twice() -> list[dict[str, Any]]:
        query(url, "vector(1)")
        active = json.loads(get(f"{url}/api/v1/targets"))["data"]["activeTargets"]
        return active if active and all(count >= 2 for count in scrapes().values()) and len(scrapes()) == 4 else []

    def scrapes() -> dict[str, float]:
        return {str(one["metric"]): float(one["value"][1]) for one in ask(url, "count_over_time(up[1m])")}

    targets = until(scraped_twice)
    assert [(target["health"], target["lastError"]) for target in targets] == [("up", "")] * 4
    assert not re.findall(
        r".*(?:Error on ingesting|Append failed|Scrape commit failed|out of order).*", log.read_text()
    )


def test_prometheus_knows_which_target_is_unwell_and_why(prometheus: tuple[str, Path]) -> None:
    url, _ = prometheus
    success = until(lambda: query(url, 'probe_success{job="health-probe"}'))
    until(lambda: len(query(url, 'probe_success{job="health-probe"}')) == 3)
    success = query(url, 'probe_success{job="health-probe"}')
    assert success == {"pryv-single": 1.0, "pryv-core-a": 1.0, "pryv-core-b": 0.0}
    for job in ("health-probe", "health-exporter"):
        failing = f'probe_check_failure_reason{{job="{job}",check="series",reason="timeout"}}'
        assert until(lambda: query(url, failing)) == {"pryv-core-b": 1.0}  # noqa: B023


def test_prometheus_counts_checks_from_the_first_scrape_on(prometheus: tuple[str, Path]) -> None:
    url, _ = prometheus
    expression = 'increase(health_exporter_check_failures_total{check="series",target="pryv-core-b"}[1m])'
    assert until(lambda: query(url, f"{expression} > 0"))


def test_nothing_of_the_token_shows(demo: str) -> None:
    for path in ("/metrics", "/", "/probe?target=pryv-single"):
        assert "simulated-read-token" not in get(f"http://{demo}{path}")
