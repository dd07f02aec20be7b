"""Benchmarks: what the exporter costs, printed; nothing is judged here."""
