"""A Prometheus exporter that asks health APIs on demand and says why a check failed."""

__version__ = "0.1.0"
