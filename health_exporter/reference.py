"""All metric tables, and the reference made from them: docs/metrics.md and `health-exporter metrics`."""

from collections.abc import Iterator

from collectors import COLLECTORS
from collectors.base import Metric
from collectors.failures import Reason
from health_exporter.exporter_metrics import EXPORTER_METRICS
from health_exporter.outcome import PROBE_METRICS

TABLES: dict[str, tuple[Metric, ...]] = {
    "Every target": PROBE_METRICS,
    **{kind: collector.metrics for kind, collector in COLLECTORS.items()},
    "The exporter": EXPORTER_METRICS,
}
"""Every metric there can be, in the order of the reference; `process_*` and `python_*` are the client library's."""

RESERVED_LABELS = frozenset(name for table in TABLES.values() for metric in table for name in metric.label_names)
"""Labels that metrics here use, so that no static label may."""


def markdown() -> str:
    """Return the metric reference."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield "# Metrics"
    yield ""
    yield "Made by `health-exporter metrics` from the tables in the code; a test holds the two together."
    yield "Absent means not observed: no metric has 0, -1 or NaN in its place."
    for title, table in TABLES.items():
        yield from ("", f"## {title}", "", "| metric | type | labels | meaning |", "| --- | --- | --- | --- |")
        for metric in table:
            labels = ", ".join(metric.label_names) + (", static labels" if metric.name == "probe_target_info" else "")
            yield f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help.replace('|', chr(92) + '|')} |"
    yield from ("", "`process_*` and `python_*`: the Python process, as the Prometheus client library gives them.")
    yield from ("", "## Reasons", "", "The first that fits is given, in this order.", "")
    yield from ("| reason | meaning |", "| --- | --- |")
    for reason in Reason:
        yield f"| `{reason}` | {_REASONS[reason]} |"
    yield ""


_REASONS = {
    Reason.INTERNAL: "a bug of the exporter; the log has the exception",
    Reason.DNS: "the name has no address: NXDOMAIN, no data, SERVFAIL, refused",
    Reason.TIMEOUT: "no whole answer in time, whatever the step, name lookup included",
    Reason.CONNECT: "connection refused, host or network unreachable, or the proxy does not connect",
    Reason.TLS: "handshake failed, certificate not accepted, or a TLS alert at any time",
    Reason.DISCONNECT: "reset or end before the answer was whole: no status line, short body, broken chunks or gzip",
    Reason.TOO_LARGE: "a limit was exceeded: bytes, depth, number of things",
    Reason.REDIRECT: "status 3xx; redirects are never followed",
    Reason.WRONG_TARGET: "not the expected API answers (a page, other JSON), or the wrong instance of it (421)",
    Reason.AUTH: "401 or 403 of the API itself, or a token known to have expired",
    Reason.NOT_FOUND: "404, or the account does not exist there",
    Reason.HTTP_STATUS: "any other status that is not promised for the check",
    Reason.DECODE: "the promised status, but the body does not parse",
    Reason.SCHEMA: "the body parses, but does not have the shape of the API",
    Reason.UNHEALTHY: "the right shape, and it says that the thing is not well",
}
