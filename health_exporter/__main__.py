"""Start the exporter: python -m health_exporter."""

from health_exporter.cli import main

raise SystemExit(main())
