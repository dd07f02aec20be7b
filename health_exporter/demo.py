"""Built-in simulated targets: what `health-exporter demo` serves."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

from collectors import COLLECTORS
from collectors.settings import TargetSettings, TlsConfig
from collectors.tls import TlsContexts, tls_contexts
from health_exporter.simulators.dns import DnsServer
from health_exporter.simulators.pryv import PryvCore, PryvDeployment


@contextlib.asynccontextmanager
async def simulated() -> AsyncIterator[tuple[list[TargetSettings], Mapping[TlsConfig, TlsContexts]]]:
    """Run simulated servers and give the targets on them, with their TLS contexts.

    A single-core Pryv deployment that is well, and one of two cores: the series worker of core-b hangs for ever, as
    one does that was started while its database was away, though the check of the guide, hfs, still passes.
    """
    async with (
        PryvCore() as single,
        PryvDeployment("pryv.test", {"core-a": "health-a", "core-b": "health-b"}) as deployment,
        DnsServer("pryv.test", deployment.records()) as dns,
    ):
        deployment.cores["core-b"].faults.hfs_worker = "stuck"
        targets = [_target("pryv-single", url=single.url, username=single.username, token=single.token)]
        for name, core in deployment.cores.items():
            targets.append(
                _target(
                    f"pryv-{name}",
                    url=core.url,
                    username=core.username,
                    token=core.token,
                    domain="pryv.test",
                    dns={"nameservers": [f"127.0.0.1:{dns.port}"]},
                    timeout="1s",
                )
            )
        default = TlsConfig()
        yield targets, {default: tls_contexts(default)}


def _target(name: str, **settings: Any) -> TargetSettings:
    kind = "pryv"
    return COLLECTORS[kind].settings_model.model_validate({"name": name, "collector": kind, **settings})


def greeting(url: str, targets: list[TargetSettings]) -> str:
    """Return what to tell somebody who has just started the demo at this URL."""
    return f"""
Health Exporter serves {len(targets)} simulated targets.

  open  {url}/
  try   curl -s '{url}/probe?target={targets[-1].name}' | grep -v '^#'

Ctrl-C stops it."""
