"""How Prometheus finds the targets: HTTP service discovery, and ready scrape configs.

Two jobs in all of them: `health-exporter` for /metrics, or /metrics/exporter beside probes, and `health-probe` for
/probe. No config here sets a label `target` or `collector`: they stand in the exposition. The label `exporter` says
which replica a probe goes through.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import yaml

from collectors.settings import TargetSettings

Style = Literal["metrics", "probe", "http-sd"]
STYLES: tuple[Style, ...] = ("metrics", "probe", "http-sd")
EXPORTER_JOB = "health-exporter"
PROBE_JOB = "health-probe"


def groups(targets: Iterable[TargetSettings], address: str, scheme: str, prefix: str) -> list[dict[str, Any]]:
    """Return the answer of /sd: one group a target, each probed through the exporter at `address` (HOST:PORT).

    Source of the shape: Prometheus' HTTP service discovery, targets and labels as JSON.
    """
    return [
        {
            "targets": [address],
            "labels": {
                "instance": target.name,
                "__scheme__": scheme,
                "__metrics_path__": f"{prefix}/probe",
                "__param_target": target.name,
                **target.labels,
            },
        }
        for target in targets
    ]


def scrape_config(
    style: Style, targets: Sequence[TargetSettings], addresses: Sequence[str], scheme: str, prefix: str
) -> str:
    """Return a Prometheus config, as YAML, that scrapes the exporters at `addresses` (HOST:PORT) in this style.

    Several addresses are replicas with the same config: each target is probed through one of them, chosen by a hash
    of its name.
    """
    jobs = {"metrics": _metrics_jobs, "probe": _probe_jobs, "http-sd": _http_sd_jobs}[style]
    config = {
        "global": {"scrape_interval": "30s", "scrape_timeout": "10s"},
        "scrape_configs": jobs(targets, addresses, scheme, prefix),
    }
    text: str = yaml.safe_dump(config, sort_keys=False, width=120)
    return text


def _job(name: str, path: str, scheme: str, **rest: Any) -> dict[str, Any]:
    return {"job_name": name, "scheme": scheme, "metrics_path": path, **rest}


def _exporter_job(addresses: Sequence[str], scheme: str, prefix: str) -> dict[str, Any]:
    return _job(EXPORTER_JOB, f"{prefix}/metrics/exporter", scheme, static_configs=[{"targets": list(addresses)}])


def _metrics_jobs(
    targets: Sequence[TargetSettings], addresses: Sequence[str], scheme: str, prefix: str
) -> list[dict[str, Any]]:
    """Scrape /metrics; of several replicas each for its share, named in the job's parameters."""
    path = f"{prefix}/metrics"
    if len(addresses) == 1:
        return [_job(EXPORTER_JOB, path, scheme, static_configs=[{"targets": list(addresses)}])]
    jobs = [_exporter_job(addresses, scheme, prefix)]
    for number, address in enumerate(addresses):
        share = [target.name for target in targets if _shard(target.name, len(addresses)) == number]
        if share:
            static = [{"targets": [address], "labels": {"exporter": address}}]
            name = f"{EXPORTER_JOB}-shard-{number}"
            jobs.append(_job(name, path, scheme, params={"target": share}, static_configs=static))
    return jobs


def _probe_jobs(
    targets: Sequence[TargetSettings], addresses: Sequence[str], scheme: str, prefix: str
) -> list[dict[str, Any]]:
    """Scrape /probe for each target listed here."""
    relabel = [
        {"source_labels": ["__address__"], "target_label": "__param_target"},
        {"source_labels": ["__param_target"], "target_label": "instance"},
        *_through(addresses),
    ]
    static = [{"targets": [target.name], **({"labels": target.labels} if target.labels else {})} for target in targets]
    probe = _job(PROBE_JOB, f"{prefix}/probe", scheme, static_configs=static, relabel_configs=relabel)
    return [_exporter_job(addresses, scheme, prefix), probe]


def _http_sd_jobs(
    _: Sequence[TargetSettings], addresses: Sequence[str], scheme: str, prefix: str
) -> list[dict[str, Any]]:
    """Scrape /probe for each target that the exporter itself lists; every replica can be asked for the list."""
    discovery = [{"url": f"{scheme}://{address}{prefix}/sd", "refresh_interval": "1m"} for address in addresses]
    probe = _job(PROBE_JOB, f"{prefix}/probe", scheme, http_sd_configs=discovery, relabel_configs=_through(addresses))
    return [_exporter_job(addresses, scheme, prefix), probe]


def _through(addresses: Sequence[str]) -> list[dict[str, Any]]:
    """Return the relabelling that sends each probe through its replica and says so in the label `exporter`."""
    last = {"source_labels": ["__address__"], "target_label": "exporter"}
    if len(addresses) == 1:
        return [{"target_label": "__address__", "replacement": addresses[0]}, last]
    hashed = {
        "source_labels": ["__param_target"],
        "modulus": len(addresses),
        "target_label": "__tmp_shard",
        "action": "hashmod",
    }
    chosen = [
        {"source_labels": ["__tmp_shard"], "regex": str(number), "target_label": "__address__", "replacement": address}
        for number, address in enumerate(addresses)
    ]
    return [hashed, *chosen, last]


def _shard(name: str, shards: int) -> int:
    """Return the shard of a name, as Prometheus' hashmod gives it: the last 8 bytes of its MD5, modulo the shards."""
    return int.from_bytes(hashlib.md5(name.encode(), usedforsecurity=False).digest()[8:], "big") % shards
