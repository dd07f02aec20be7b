# `make demo` and `make test` do all the set-up; see README.md.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test lint types imports tests bench generated clean

demo: $(VENV)/.demo
	@$(BIN)/health-exporter demo

test: lint types imports tests

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

imports: $(VENV)/.dev
	$(BIN)/lint-imports

tests: $(VENV)/.dev
	$(BIN)/python -m pytest --cov --cov-report=term

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks.bench

# What is made from something else: the metric reference, dashboards, manifests.
generated: $(VENV)/.dev
	$(BIN)/health-exporter metrics > docs/metrics.md
	$(BIN)/python -m dashboards.generate
	$(BIN)/python -m deploy.generate

clean:
	rm -rf $(VENV) build dist *.egg-info .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/.demo: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@
