"""Service discovery and ready scrape configs."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from yarl import URL

from health_exporter import cli
from health_exporter.discovery import STYLES, groups, scrape_config
from health_exporter.exporter_metrics import ExporterMetrics
from health_exporter.web import Exporter, WebOptions, serving
from tests.support import prober_of, pryv

A = pryv("http://127.0.0.1:1", name="a", labels={"team": "core"})
B = pryv("http://127.0.0.1:1", name="b")
MANY = [pryv("http://127.0.0.1:1", name=f"target-{number}") for number in range(40)]


async def sd(
    path: str = "/sd", options: WebOptions | None = None, headers: dict[str, str] | None = None
) -> tuple[int, Any, str]:
    async with prober_of(A, B) as prober:
        exporter = Exporter(prober, ExporterMetrics(), options or WebOptions())
        async with serving(exporter, [("127.0.0.1", 0)]) as listening, aiohttp.ClientSession() as session:
            at = f"127.0.0.1:{listening[0][1]}"
            async with session.get(f"http://{at}{path}", headers=headers) as response:
                body = await response.json() if response.status == 200 else await response.text()
                return response.status, body, at


async def test_sd_lists_each_target_in_a_group_of_its_own() -> None:
    status, body, at = await sd()
    assert status == 200
    assert body == groups([A, B], at, "http", "")
    assert body[0] == {
        "targets": [at],
        "labels": {
            "instance": "a",
            "__scheme__": "http",
            "__metrics_path__": "/probe",
            "__param_target": "a",
            "team": "core",
        },
    }


async def test_sd_says_the_host_it_was_asked_by_and_believes_no_proxy_header() -> None:
    headers = {"Host": "exporter.example.com", "X-Forwarded-Host": "evil.example.com", "X-Forwarded-Proto": "https"}
    _, body, _ = await sd(headers=headers)
    assert body[0]["targets"] == ["exporter.example.com:80"]
    assert body[0]["labels"]["__scheme__"] == "http"


async def test_sd_says_the_external_url_where_there_is_one() -> None:
    options = WebOptions(route_prefix="/health", external=URL("https://metrics.example.com/health"))
    _, body, _ = await sd("/health/sd", options)
    assert body[0]["targets"] == ["metrics.example.com:443"]
    labels = body[0]["labels"]
    assert (labels["__scheme__"], labels["__metrics_path__"]) == ("https", "/health/probe")


@pytest.mark.parametrize("host", ["a b", "user@host", "host/path", "host:port", "[::1"])
async def test_sd_refuses_a_host_that_is_none(host: str) -> None:
    status, body, _ = await sd(headers={"Host": host})
    assert (status, body) == (400, "the Host header is not a host\n")


async def test_sd_narrows_by_collector_and_knows_its_parameters() -> None:
    assert len((await sd("/sd?collector=pryv"))[1]) == 2
    status, body, _ = await sd("/sd?collector=nothing")
    assert status == 400
    assert "known: " in body
    assert (await sd("/sd?target=a"))[0] == 400


async def test_sd_is_an_empty_list_without_targets() -> None:
    async with prober_of() as prober:
        exporter = Exporter(prober, ExporterMetrics(), WebOptions())
        async with (
            serving(exporter, [("127.0.0.1", 0)]) as listening,
            aiohttp.request("GET", f"http://127.0.0.1:{listening[0][1]}/sd") as response,
        ):
            assert response.content_type == "application/json"
            assert await response.json() == []


@pytest.mark.e2e
@pytest.mark.parametrize("addresses", [["one:10054"], ["one:10054", "two:10054", "three:10054"]])
@pytest.mark.parametrize("style", STYLES)
def test_promtool_accepts_each_config(style: Any, addresses: list[str], tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    path = tmp_path / "prometheus.yml"
    path.write_text(scrape_config(style, [A, B, *MANY], addresses, "https", "/health"))
    subprocess.run([promtool, "check", "config", str(path)], check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize("addresses", [["one:1"], ["one:1", "two:1"]])
@pytest.mark.parametrize("style", STYLES)
def test_no_config_sets_a_label_that_the_exposition_has(style: Any, addresses: list[str]) -> None:
    text = scrape_config(style, [A, B], addresses, "http", "")
    jobs = yaml.safe_load(text)["scrape_configs"]
    labels = {rule["target_label"] for job in jobs for rule in job.get("relabel_configs", ())}
    labels |= {name for job in jobs for one in job.get("static_configs", ()) for name in one.get("labels", ())}
    assert not labels & {"target", "collector"}
    assert all(job["job_name"].startswith(("health-exporter", "health-probe")) for job in jobs)


def test_replicas_scraped_at_metrics_share_the_targets_without_rest_or_overlap() -> None:
    config = yaml.safe_load(scrape_config("metrics", MANY, ["one:1", "two:1", "three:1"], "http", ""))
    shares = [job["params"]["target"] for job in config["scrape_configs"][1:]]
    assert sorted(name for share in shares for name in share) == sorted(target.name for target in MANY)
    assert len(shares) == 3


def test_the_command_needs_a_config_only_for_a_list_of_targets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = f"--config.file={tmp_path / 'none.yml'}"
    assert cli.main(["scrape-config", nothing]) == 0
    assert "localhost:10054" in capsys.readouterr().out
    assert cli.main(["scrape-config", nothing, "--style=http-sd", "--address=h:1", "--address=[::1]:2"]) == 0
    assert cli.main(["scrape-config", nothing, "--style", "probe"]) == 1
    config = tmp_path / "config.yml"
    config.write_text('targets: [{name: a, collector: pryv, url: "http://127.0.0.1:1", username: user1, token: x}]')
    capsys.readouterr()
    assert cli.main(["scrape-config", f"--config.file={config}", "--style=probe"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["scrape_configs"][1]["static_configs"] == [{"targets": ["a"]}]


@pytest.mark.parametrize("address", ["nowhere", ":10054", "host:port"])
def test_an_address_that_is_none_is_a_usage_error(address: str) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["scrape-config", "--address", address])
    assert stop.value.code == 2
