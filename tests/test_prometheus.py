"""End to end: a real Prometheus scrapes the demo, and promtool has nothing to say about it."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.e2e


def program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def until(found: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Return the first true answer; the last exception or a failure if none comes in time."""
    end = time.monotonic() + seconds
    while True:
        try:
            if answer := found():
                return answer
        except OSError:
            if time.monotonic() > end:
                raise
        assert time.monotonic() < end, "did not come in time"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def demo() -> Iterator[str]:
    """Run `exporter.py demo` and give HOST:PORT."""
    command = [sys.executable, "exporter.py", "demo", "--web.listen-address", "127.0.0.1:0"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "msg=listening" in line)
        yield line.split("address=")[1].split()[0]
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
        assert process.wait(30) == 0


def get(url: str, accept: str = "*/*") -> str:
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept}), timeout=30) as response:
        return str(response.read().decode())


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
    """Run a Prometheus that scrapes /metrics and each /probe of the demo every second; give its URL and log."""
    directory = tmp_path_factory.mktemp("prometheus")
    targets = ["pryv-single", "pryv-core-a", "pryv-core-b"]
    (directory / "prometheus.yml").write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "2s", "scrape_timeout": "2s"},
                "scrape_configs": [
                    {"job_name": "health-exporter", "static_configs": [{"targets": [demo]}]},
                    {
                        "job_name": "health-probe",
                        "metrics_path": "/probe",
                        "static_configs": [{"targets": targets}],
                        "relabel_configs": [
                            {"source_labels": ["__address__"], "target_label": "__param_target"},
                            {"source_labels": ["__param_target"], "target_label": "instance"},
                            {"target_label": "__address__", "replacement": demo},
                        ],
                    },
                ],
            }
        )
    )
    port = free_port()
    log = directory / "log"
    command = [
        program("prometheus"),
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=debug",
    ]
    with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            yield f"http://127.0.0.1:{port}", log
        finally:
            process.terminate()


def query(prometheus: str, expression: str) -> dict[str, float]:
    """Return the values of an instant query, by target."""
    answer = json.loads(get(f"{prometheus}/api/v1/query?query={urllib.parse.quote(expression)}"))
    return {one["metric"].get("target", ""): float(one["value"][1]) for one in answer["data"]["result"]}


def test_prometheus_scrapes_the_demo_and_rejects_nothing(prometheus: tuple[str, Path]) -> None:
    url, log = prometheus

    def scraped_twice() -> list[dict[str, Any]]:
        query(url, "vector(1)")
        active = json.loads(get(f"{url}/api/v1/targets"))["data"]["activeTargets"]
        return active if active and all(count >= 2 for count in scrapes().values()) and len(scrapes()) == 4 else []

    def scrapes() -> dict[str, float]:
        answer = json.loads(get(f"{url}/api/v1/query?query={urllib.parse.quote('count_over_time(up[1m])')}"))
        return {str(one["metric"]): float(one["value"][1]) for one in answer["data"]["result"]}

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
