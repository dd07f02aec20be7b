"""What is known about the health APIs: one module a kind of target, registered here."""

from typing import Any

from collectors.base import Collector
from collectors.pryv import Pryv

COLLECTORS: dict[str, type[Collector[Any, Any]]] = {collector.kind: collector for collector in (Pryv,)}
"""Kind, as `collector` of a target in the config, to what collects it."""
