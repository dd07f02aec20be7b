"""What end-to-end tests share: the demo, a Prometheus that scrapes it, and questions to both."""

import contextlib
import json
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


def program(name: str) -> str:
    """Return the path of a program; the test is skipped without it."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def free_port() -> int:
    """Return a port nothing listens on."""
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


def get(url: str, accept: str = "*/*") -> str:
    """Return the text at a URL."""
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept}), timeout=30) as response:
        return str(response.read().decode())


@contextlib.contextmanager
def running_demo() -> Iterator[str]:
    """Run `exporter.py demo` and give HOST:PORT."""
    command = [sys.executable, "exporter.py", "demo", "--web.listen-address", "127.0.0.1:0"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "msg=listening" in line)
        try:
            yield line.split("address=")[1].split()[0]
        except BaseException:
            process.kill()
            raise
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
        assert process.wait(30) == 0


@contextlib.contextmanager
def running_prometheus(directory: Path, config: dict[str, Any]) -> Iterator[tuple[str, Path]]:
    """Run a Prometheus with this config; give its URL and its log."""
    (directory / "prometheus.yml").write_text(json.dumps(config))
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


def scrape_both_ways(demo: str, targets: list[str]) -> list[dict[str, Any]]:
    """Return scrape configs for /metrics and for the /probe of each target."""
    return [
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
    ]


def ask(prometheus: str, expression: str) -> list[dict[str, Any]]:
    """Return the result of an instant query."""
    answer = json.loads(get(f"{prometheus}/api/v1/query?query={urllib.parse.quote(expression)}"))
    return list(answer["data"]["result"])


def query(prometheus: str, expression: str) -> dict[str, float]:
    """Return the values of an instant query, by target."""
    return {one["metric"].get("target", ""): float(one["value"][1]) for one in ask(prometheus, expression)}
