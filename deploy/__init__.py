"""How to run the exporter: see docs/deploy.md. What is generated is written by generate.py."""
