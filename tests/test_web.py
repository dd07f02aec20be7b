"""The HTTP side: routes, parameters, formats, limits, budgets and draining."""

import asyncio
import errno
import gzip
import re
import socket
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from collectors.base import CheckReport
from health_exporter import web as exporter_web
from health_exporter.exporter_metrics import ExporterMetrics
from health_exporter.exposition import OPENMETRICS
from health_exporter.prober import Budget
from health_exporter.web import TIMEOUT_HEADER, address_text, budget_seconds, open_listener, parse_address
from tests.conftest import ANSWERED, Asking, Got, Upstream, served, until

LONG = 30.0


def targets_in(got: Got) -> set[str]:
    """Return the targets that were probed."""
    return {dict(labels)["target"] for name, labels in got.samples if name == "probe_success"}


def has_exporter_metrics(got: Got) -> bool:
    return any(name == "health_exporter_build_info" for name, _ in got.samples)


def requests_counted(metrics: ExporterMetrics, handler: str, code: int) -> float:
    labels = {"handler": handler, "code": str(code)}
    return metrics.registry.get_sample_value("health_exporter_http_requests_total", labels) or 0.0


def rejected(metrics: ExporterMetrics, cause: str) -> float | None:
    return metrics.registry.get_sample_value("health_exporter_requests_rejected_total", {"cause": cause})


# --- budgets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "offset", "wanted"),
    [
        ([], 0.5, 10.0),
        (["10"], 0.5, 9.5),
        (["2.0"], 0.5, 1.5),
        ([" 3 "], 0.5, 2.5),
        (["+4"], 0.5, 3.5),
        (["1e1"], 0.5, 9.5),
        ([".75"], 0.5, 0.25),
        (["5."], 1.0, 4.0),
        (["0.5"], 0.5, 0.25),
        (["0.2"], 0.5, 0.1),
        (["3"], 60.0, 1.5),
    ],
)
def test_the_budget_is_the_scrape_timeout_less_the_offset(headers: list[str], offset: float, wanted: float) -> None:
    assert budget_seconds(headers, offset) == pytest.approx(wanted)


@pytest.mark.parametrize(
    "value",
    [
        "NaN",
        "nan",
        "inf",
        "-inf",
        "Infinity",
        "1e999",
        "0",
        "-0",
        "0.0",
        "-1",
        "abc",
        "1_0",
        "",
        " ",
        "1 2",
        "0x10",
        "٣",
    ],
)
def test_a_senseless_scrape_timeout_is_refused(value: str) -> None:
    with pytest.raises(web.HTTPBadRequest) as refused:
        budget_seconds([value], 0.5)
    assert refused.value.text == f"{TIMEOUT_HEADER} is not a number of seconds above 0\n"


def test_a_scrape_timeout_given_twice_is_refused() -> None:
    with pytest.raises(web.HTTPBadRequest) as refused:
        budget_seconds(["5", "5"], 0.5)
    assert refused.value.text == f"{TIMEOUT_HEADER} is given twice\n"


@pytest.mark.parametrize("path", ["/metrics", "/probe?target=t"])
async def test_the_budget_of_a_request_stands_in_its_answer(path: str, upstream: Upstream) -> None:
    async with served(upstream.target("t", "ok"), timeout_offset=0.25) as service:
        for headers, wanted in ({}, 10.0), ({TIMEOUT_HEADER: "3"}, 2.75), ({TIMEOUT_HEADER: "0.2"}, 0.1):
            got = await service.get(path, headers)
            key = ("probe_timeout_seconds", frozenset({"collector": "asking", "target": "t"}.items()))
            assert got.samples[key] == pytest.approx(wanted)
        asked = len(upstream.asked)
        for twice in ([(TIMEOUT_HEADER, "5"), (TIMEOUT_HEADER, "5")], [(TIMEOUT_HEADER, "no")]):
            assert (await service.get(path, twice)).status == 400
        assert len(upstream.asked) == asked


# --- routes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/", "GET", 200),
        ("/metrics", "GET", 200),
        ("/metrics/exporter", "GET", 200),
        ("/probe?target=t", "GET", 200),
        ("/-/healthy", "GET", 200),
        ("/-/healthy", "HEAD", 200),
        ("/-/ready", "GET", 200),
        ("/metrics", "HEAD", 405),
        ("/metrics", "POST", 405),
        ("/metrics", "OPTIONS", 405),
        ("/probe?target=t", "HEAD", 405),
        ("/probe?target=t", "POST", 405),
        ("/probe?target=t", "DELETE", 405),
        ("/metrics/", "GET", 404),
        ("/metric", "GET", 404),
        ("/favicon.ico", "GET", 404),
        ("/../etc/passwd", "GET", 404),
        ("/probe", "GET", 400),
    ],
)
async def test_every_path_and_method_has_its_status_and_nothing_is_stored(
    path: str, method: str, status: int, upstream: Upstream
) -> None:
    async with served(upstream.target("t", "ok")) as service:
        got = await service.get(path, method=method)
    assert got.status == status
    assert got.headers["Cache-Control"] == "no-store"
    if status == 405:
        assert got.headers["Allow"] == "GET"
        assert upstream.asked == []


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/metrics?targets=a", "unknown parameter 'targets'; known: target, collector"),
        ("/metrics?module=a", "unknown parameter 'module'; known: collector, target"),
        ("/metrics/exporter?target=alpha", "unknown parameter 'target'; known: none"),
        ("/metrics?target=alphb", "unknown target 'alphb'; known: alpha, beta, gamma"),
        ("/metrics?target=gama", "unknown target 'gama'; known: gamma, alpha, beta"),
        ("/metrics?target=alpha&target=no", "unknown target 'no'; known: alpha, beta, gamma"),
        ("/metrics?target=", "unknown target ''; known: alpha, beta, gamma"),
        ("/metrics?collector=askin", "unknown collector 'askin'; known: asking, "),
        ("/probe", "the parameter target has to be given once: /probe?target=NAME"),
        ("/probe?target=alpha&target=alpha", "the parameter target has to be given once: /probe?target=NAME"),
        ("/probe?target=Beta", "unknown target 'Beta'; known: beta, alpha, gamma"),
        ("/probe?target=alpha&collector=asking", "unknown parameter 'collector'; known: target"),
        ("/probe?target=" + "x" * 500, "unknown target '" + "x" * 80 + "'; known: alpha, beta, gamma"),
    ],
)
async def test_what_is_unknown_or_given_wrongly_is_refused_with_what_is_known(
    path: str, sentence: str, upstream: Upstream
) -> None:
    async with served(*(upstream.target(name, "ok") for name in ("beta", "gamma", "alpha"))) as service:
        got = await service.get(path)
        handler = path.partition("?")[0].strip("/").replace("/", "_")
        assert requests_counted(service.metrics, handler, 400) == 1
    assert got.status == 400
    assert got.text.startswith(sentence)
    assert got.text.count("\n") == 1
    assert upstream.asked == []


async def test_of_many_targets_the_likeliest_and_how_many_more_are_named(upstream: Upstream) -> None:
    async with served(*(upstream.target(f"host-{n:03}", "ok") for n in range(50))) as service:
        text = (await service.get("/probe?target=host-49")).text
    named = text.partition("known: ")[2].partition(" and ")[0].split(", ")
    assert len(named) == 20
    assert named[0] == "host-049"
    assert text.endswith(" and 30 more\n")


async def test_requests_are_counted_by_route_never_by_path(upstream: Upstream) -> None:
    async with served(upstream.target("t", "ok")) as service:
        for path in ("/one", "/two?x=1", "/metrics", "/probe?target=t", "/-/ready", "/"):
            await service.get(path)
        await service.get("/metrics", method="POST")
        samples = (await service.get("/metrics/exporter")).samples
    counted = {
        (dict(labels)["handler"], dict(labels)["code"]): number
        for (name, labels), number in samples.items()
        if name == "health_exporter_http_requests_total"
    }
    assert counted == {
        ("other", "404"): 2,
        ("other", "405"): 1,
        ("metrics", "200"): 1,
        ("probe", "200"): 1,
        ("ready", "200"): 1,
        ("landing", "200"): 1,
    }


async def test_a_bug_in_a_handler_is_a_counted_and_logged_500(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> bytes:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(exporter_web, "join", broken)
    async with served(upstream.target("t", "ok")) as service:
        got = await service.get("/metrics")
        assert requests_counted(service.metrics, "metrics", 500) == 1
        assert service.in_flight == 0
        assert (await service.get("/-/healthy")).status == 200
    assert (got.status, got.headers["Cache-Control"]) == (500, "no-store")
    assert "ZeroDivisionError" not in got.text
    assert any(record.exc_info for record in caplog.records)


# --- what is probed -------------------------------------------------------------------------------------------------


async def test_metrics_probes_every_target_and_adds_the_exporters_own(upstream: Upstream) -> None:
    async with served(*(upstream.target(name, "ok") for name in ("a", "b", "c"))) as service:
        got = await service.get("/metrics")
    assert targets_in(got) == {"a", "b", "c"}
    assert has_exporter_metrics(got)
    assert sorted(upstream.asked) == ["/a/ok", "/b/ok", "/c/ok"]


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("target=a", {"a"}),
        ("target=a&target=c", {"a", "c"}),
        ("target=a&target=a", {"a"}),
        ("collector=asking", {"a", "b", "c"}),
        ("collector=asking&collector=pryv", {"a", "b", "c"}),
        ("collector=pryv", set()),
        ("collector=pryv&target=a", set()),
        ("collector=asking&target=b", {"b"}),
    ],
)
async def test_metrics_can_be_narrowed_and_then_has_none_of_the_exporters_own(
    query: str, wanted: set[str], upstream: Upstream
) -> None:
    async with served(*(upstream.target(name, "ok") for name in ("a", "b", "c"))) as service:
        got = await service.get(f"/metrics?{query}")
    assert got.status == 200
    assert targets_in(got) == wanted
    assert {path.split("/")[1] for path in upstream.asked} == wanted
    assert not has_exporter_metrics(got)


async def test_probe_asks_one_target_and_has_none_of_the_exporters_own(upstream: Upstream) -> None:
    async with served(upstream.target("a", "fail"), upstream.target("b", "ok")) as service:
        got = await service.get("/probe?target=a")
    assert got.status == 200
    assert targets_in(got) == {"a"}
    assert upstream.asked == ["/a/fail"]
    assert not [name for name, _ in got.samples if name.startswith(("health_exporter", "process", "python"))]


async def test_static_labels_stand_on_target_info_under_metrics_only(upstream: Upstream) -> None:
    async with served(upstream.target("t", "ok", labels={"team": "core"})) as service:
        for path, wanted in (("/metrics", "core"), ("/metrics?target=t", "core"), ("/probe?target=t", None)):
            samples = (await service.get(path)).samples
            infos = [dict(labels) for name, labels in samples if name == "probe_target_info"]
            assert [info.get("team") for info in infos] == [wanted]
            assert [info["url"] for info in infos] == [f"{upstream.url}/t"]
            assert not [name for name, labels in samples if "team" in dict(labels) and name != "probe_target_info"]


async def test_the_exporters_own_metrics_are_given_without_probing(upstream: Upstream) -> None:
    async with served(upstream.target("t", "ok")) as service:
        got = await service.get("/metrics/exporter")
        await service.get("/")
        await service.get("/-/ready")
    assert has_exporter_metrics(got)
    assert targets_in(got) == set()
    assert upstream.asked == []
    assert upstream.server.accepted == 0


async def test_exporter_metrics_can_be_left_out_of_metrics(upstream: Upstream) -> None:
    async with served(upstream.target("t", "ok"), exporter_metrics=False) as service:
        got = await service.get("/metrics")
        assert targets_in(got) == {"t"}
        assert not has_exporter_metrics(got)
        assert has_exporter_metrics(await service.get("/metrics/exporter"))


async def test_probing_on_metrics_can_be_switched_off(upstream: Upstream) -> None:
    async with served(upstream.target("t", "ok"), probe_on_metrics=False) as service:
        got = await service.get("/metrics")
        assert has_exporter_metrics(got)
        assert upstream.asked == []
        for query in ("target=t", "collector=asking"):
            refused = await service.get(f"/metrics?{query}")
            assert refused.status == 400
            assert "/probe?target=NAME" in refused.text
        assert targets_in(await service.get("/probe?target=t")) == {"t"}


async def test_a_target_with_very_many_samples_is_answered_whole(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def many(self: Asking, name: str, report: CheckReport) -> None:
        for number in range(exporter_web.MANY_SAMPLES + 1):
            report.add(ANSWERED, 1, path=str(number))

    monkeypatch.setattr(Asking, "ask", many)
    async with served(upstream.target("t", "ok")) as service:
        got = await service.get("/probe?target=t", {"Accept-Encoding": "gzip"})
    assert sum(name == "asking_answered" for name, _ in got.samples) == exporter_web.MANY_SAMPLES + 1
    assert got.headers["Content-Encoding"] == "gzip"


# --- formats --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/metrics", "/metrics/exporter", "/probe?target=t"])
@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ([], "text/plain; version=0.0.4; charset=utf-8"),
        ([("Accept", "text/plain;version=abc")], "text/plain; version=0.0.4; charset=utf-8"),
        ([("Accept", f"{OPENMETRICS};version=1.0.0")], f"{OPENMETRICS}; version=1.0.0; charset=utf-8"),
        (
            [("Accept", "application/json"), ("Accept", "text/plain;version=1.0.0;escaping=allow-utf-8")],
            "text/plain; version=1.0.0; charset=utf-8; escaping=allow-utf-8",
        ),
    ],
)
async def test_the_format_is_the_one_asked_for(
    path: str, accept: list[tuple[str, str]], wanted: str, upstream: Upstream
) -> None:
    async with served(upstream.target("t", "ok")) as service:
        got = await service.get(path, accept)
    assert got.headers["Content-Type"] == wanted
    assert got.headers["Vary"] == "Accept, Accept-Encoding"
    assert got.headers["Cache-Control"] == "no-store"
    assert got.text.endswith("# EOF\n") == wanted.startswith(OPENMETRICS)
    assert got.text.count("# EOF") <= 1
    assert got.samples


async def test_gzip_is_sent_when_asked_for_and_decodes_to_the_same(upstream: Upstream) -> None:
    skipped = ("Accept", "Accept-Encoding", "User-Agent")
    async with served(upstream.target("t", "ok")) as service, aiohttp.ClientSession(auto_decompress=False) as raw:
        for path, accepted, encoded in (
            ("/metrics", "gzip", True),
            ("/metrics", "gzip;q=0, *", False),
            ("/metrics", "identity", False),
            ("/metrics", "*", True),
            ("/probe?target=t", "gzip", True),
        ):
            headers = {"Accept-Encoding": accepted}
            async with raw.get(service.url + path, headers=headers, skip_auto_headers=skipped) as response:
                body = await response.read()
            assert (response.headers.get("Content-Encoding") == "gzip") is encoded, accepted
            assert int(response.headers["Content-Length"]) == len(body)
            text = gzip.decompress(body) if encoded else body
            assert b"\nprobe_success{" in text


async def test_a_small_answer_is_not_compressed(upstream: Upstream) -> None:
    async with served(upstream.target("t", "ok")) as service:
        got = await service.get("/metrics?collector=pryv", {"Accept-Encoding": "gzip"})
    assert (got.body, "Content-Encoding" in got.headers) == (b"", False)


# --- limits ---------------------------------------------------------------------------------------------------------


async def test_more_requests_than_allowed_are_turned_away_and_other_paths_still_answer(upstream: Upstream) -> None:
    targets = upstream.target("t", "wait", timeout=LONG), upstream.target("u", "ok")
    async with served(*targets, max_requests=2) as service:
        held = [asyncio.create_task(service.get("/probe?target=t")) for _ in range(2)]
        await until(lambda: service.in_flight == 2)
        for path in ("/probe?target=u", "/metrics"):
            got = await service.get(path)
            assert got.status == 503
            assert int(got.headers["Retry-After"]) > 0
            assert got.headers["Cache-Control"] == "no-store"
        for path in ("/", "/metrics/exporter", "/-/healthy", "/-/ready"):
            assert (await service.get(path)).status == 200
        assert rejected(service.metrics, "max_requests") == 2
        assert rejected(service.metrics, "draining") == 0
        assert requests_counted(service.metrics, "probe", 503) == 1
        assert upstream.asked == ["/t/wait"]
        upstream.gate.set()
        assert [got.status for got in await asyncio.gather(*held)] == [200, 200]
        assert service.in_flight == 0
        assert (await service.get("/probe?target=u")).status == 200


async def test_a_client_that_goes_away_gives_its_place_back(upstream: Upstream) -> None:
    async with served(upstream.target("t", "wait", timeout=LONG), max_requests=1) as service:
        request = asyncio.create_task(service.get("/probe?target=t"))
        await until(lambda: upstream.server.connections == 1)
        request.cancel()
        await until(lambda: service.in_flight == 0 and upstream.server.connections == 0)
        upstream.gate.set()
        assert (await service.get("/probe?target=t")).status == 200


# --- readiness and draining -----------------------------------------------------------------------------------------


async def test_ready_only_while_listening_and_not_draining(upstream: Upstream) -> None:
    async with served(upstream.target("t", "ok")) as service:
        assert (await service.get("/-/ready")).status == 200
        service.exporter.ready = False
        got = await service.get("/-/ready")
        assert (got.status, got.text) == (503, "not ready\n")
        service.exporter.ready = True
        await service.exporter.drain()
        assert (await service.get("/-/ready")).status == 503
        assert (await service.get("/-/healthy")).status == 200
        assert (await service.get("/metrics/exporter")).status == 200
        for path in ("/metrics", "/probe?target=t"):
            got = await service.get(path)
            assert (got.status, "Retry-After" in got.headers) == (503, True)
        assert rejected(service.metrics, "draining") == 2
        assert upstream.asked == []


async def test_draining_waits_for_the_requests_in_flight(upstream: Upstream) -> None:
    async with served(upstream.target("t", "wait", timeout=LONG)) as service:
        request = asyncio.create_task(service.get("/metrics"))
        await until(lambda: upstream.server.connections == 1)
        draining = asyncio.create_task(service.exporter.drain())
        await until(lambda: service.exporter.draining)
        assert (await service.get("/-/ready")).status == 503
        assert not draining.done()
        upstream.gate.set()
        got = await request
        await draining
    assert got.status == 200
    assert targets_in(got) == {"t"}


async def test_draining_ends_by_itself_when_a_request_does_not(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter_web, "DRAIN_SECONDS", 0.05)
    async with served(upstream.target("t", "hang", timeout=LONG)) as service:
        request = asyncio.create_task(service.get("/metrics"))
        await until(lambda: upstream.server.connections == 1)
        await asyncio.wait_for(service.exporter.drain(), LONG / 2)
        assert service.in_flight == 1
        request.cancel()


async def test_the_listeners_are_shut_at_the_end(upstream: Upstream) -> None:
    async with served(upstream.target("t", "ok"), listeners=2) as service:
        assert len(set(service.ports)) == 2
        for port in service.ports:
            service.ports[0] = port
            assert (await service.get("/-/ready")).status == 200
    for port in service.ports:
        with pytest.raises(OSError, match=r"."):
            await asyncio.open_connection("127.0.0.1", port)


# --- the page -------------------------------------------------------------------------------------------------------


async def test_the_landing_page_links_with_the_prefix_and_what_it_links_is_there(upstream: Upstream) -> None:
    async with served(upstream.target("a:b.c-1", "ok"), route_prefix="/health/x") as service:
        got = await service.get("/health/x/")
        links = re.findall(r'href="([^"]+)"', got.text)
        assert set(links) == {"/health/x/metrics", "/health/x/metrics/exporter", "/health/x/probe?target=a:b.c-1"}
        for link in links:
            assert (await service.get(link)).status == 200
        for path in ("/health/x/-/ready", "/health/x/-/healthy"):
            assert (await service.get(path)).status == 200
        for path in ("/", "/metrics", "/metrics/exporter", "/probe?target=a", "/-/ready", "/-/healthy"):
            assert (await service.get(path)).status == 404
    assert got.headers["Content-Type"].startswith("text/html")
    assert got.headers["Content-Security-Policy"] == "default-src 'none'"


async def test_the_landing_page_escapes_what_it_shows(upstream: Upstream) -> None:
    hostile = '<script>"&'
    plain = upstream.target("t", "ok")
    target = plain.model_copy(update={"name": hostile, "url": plain.address / hostile})
    async with served(target) as service:
        got = await service.get("/")
    assert "<script" not in got.text
    assert "&lt;script&gt;&quot;&amp;" in got.text


# --- listeners ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (":10054", ("", 10054)),
        (":0", ("", 0)),
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("[::1]:65535", ("::1", 65535)),
        ("[::]:1", ("::", 1)),
        ("localhost:10054", ("localhost", 10054)),
        ("0.0.0.0:10054", ("0.0.0.0", 10054)),
    ],
)
def test_a_listen_address_is_read_and_written(text: str, wanted: tuple[str, int]) -> None:
    assert parse_address(text) == wanted
    assert address_text(*wanted) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10054",
        "localhost",
        ":",
        "localhost:",
        ":http",
        ":-1",
        ":65536",
        ":1.5",
        ":٣",
        "[::1]",
        ": 80",
        "[::1:80",
        "::1:80",
        "[]:80",
    ],
)
def test_what_is_no_listen_address_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a listen address: .*write :10054, 127\.0\.0\.1:10054 or \[::1\]:10054"):
        parse_address(text)


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")
def test_without_a_host_both_ip_families_are_listened_on() -> None:
    with open_listener("", 0) as listener:
        port = listener.getsockname()[1]
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, port)).close()
    with open_listener("::1", 0) as listener:
        socket.create_connection(("::1", listener.getsockname()[1])).close()


@pytest.mark.parametrize("has", [False, True])
def test_without_ipv6_only_ipv4_is_listened_on(has: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = socket.create_server

    def without_ipv6(*arguments: Any, **keys: Any) -> socket.socket:
        if keys.get("family") == socket.AF_INET6:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        return plain(*arguments, **keys)

    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: has)
    monkeypatch.setattr(socket, "create_server", without_ipv6)
    with open_listener("", 0) as listener:
        assert listener.family == socket.AF_INET
        socket.create_connection(("127.0.0.1", listener.getsockname()[1])).close()


@pytest.mark.parametrize("host", ["", "127.0.0.1"])
def test_a_taken_port_is_an_error(host: str) -> None:
    with open_listener(host, 0) as listener, pytest.raises(OSError, match="Address already in use"):
        open_listener(host, listener.getsockname()[1])


async def test_an_address_that_cannot_be_listened_on_is_named_and_the_others_are_shut(upstream: Upstream) -> None:
    async with served(upstream.target("t", "ok")) as service:
        taken = service.ports[0]
        free = socket.create_server(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        other = exporter_web.Exporter(service.prober, service.metrics, exporter_web.WebOptions())
        with pytest.raises(OSError, match="in use") as refused:
            async with exporter_web.serving(other, [("127.0.0.1", port), ("127.0.0.1", taken)]):
                pass
        assert str(refused.value.strerror).startswith(f"cannot listen on 127.0.0.1:{taken}: Address already in use")
        assert not other.ready
        open_listener("127.0.0.1", port).close()


async def test_the_budget_begins_when_the_request_arrives(upstream: Upstream) -> None:
    budgets: list[Budget] = []

    async with served(upstream.target("t", "ok"), upstream.target("u", "ok")) as service:
        plain = service.prober.probe

        async def noted(name: str, budget: Budget, *more: Any) -> Any:
            budgets.append(budget)
            return await plain(name, budget, *more)

        vars(service.prober)["probe"] = noted
        await service.get("/metrics")
    assert len(budgets) == 2
    assert budgets[0] is budgets[1]
