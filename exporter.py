"""Start the exporter from a checkout: python exporter.py."""

from health_exporter.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
