"""What is known about the health APIs: one module a kind of target, registered here."""

from typing import Any

from collectors.base import Collector
from collectors.bundles import Bundles
from collectors.healthchecks import Healthchecks
from collectors.pryv import Pryv
from collectors.system_health import SystemHealth

COLLECTORS: dict[str, type[Collector[Any, Any]]] = {
    collector.kind: collector for collector in (Pryv, Bundles, SystemHealth, Healthchecks)
}
"""Kind, as `collector` of a target in the config, to what collects it."""
