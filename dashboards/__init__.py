"""The Grafana dashboards: JSON files, and the program that writes them."""
