# Two commands on a fresh machine: `make demo` and `make test`. Nothing but Python >= 3.11, pip and
# the package index is needed: the environment is made in .venv, from uv.lock.

PYTHON ?= python3
UV_VERSION := 0.13.9
BIN := .venv/bin
READY := .venv/.ready

.PHONY: all test test-long demo bench check lint types layers docs collector collector-test clean

all: check test

$(READY): pyproject.toml uv.lock
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed"'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv==$(UV_VERSION)
	$(BIN)/uv sync --quiet --locked --all-extras --python $(BIN)/python
	touch $@

test: $(READY) collector  ## every test, with branch coverage
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

test-long: $(READY) collector  ## the same with the full sizes of fault and property tests
	DELTAWITNESS_TEST_SIZE=long $(BIN)/python -m pytest -q

collector: $(READY)  ## the Collector of collector/, and the Prometheus that tests its rules
	PATH="$(abspath $(BIN)):$$PATH" collector/build.sh

collector-test: collector  ## the Collector end to end: what was asserted, and how much of it
	$(BIN)/python -m pytest -q tests/collector

demo: $(READY)  ## an ordinary program on real data, observed
	$(BIN)/deltawitness run --job lakehouse --show-trace -- $(BIN)/python examples/lakehouse.py demo-output/lakehouse
	$(BIN)/deltawitness commit demo-output/lakehouse/flights 14
	$(BIN)/deltawitness run --job cached-lakehouse -- $(BIN)/python examples/cached_lakehouse.py demo-output/lakehouse
	$(BIN)/deltawitness runs --limit 4
	$(BIN)/deltawitness writes --result miss

bench: $(READY)  ## what observing costs, as ratios
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/session.py
	$(BIN)/python benchmarks/remote.py
	$(BIN)/python benchmarks/cache.py
	$(BIN)/python benchmarks/ledger.py
	$(BIN)/python benchmarks/reconcile.py

check: lint types layers docs  ## everything that is not a test

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(READY)
	$(BIN)/mypy

layers: $(READY)
	$(BIN)/lint-imports

docs: $(READY)  ## the site, into site/; a warning, a broken link or a broken anchor fails it
	$(BIN)/uv sync --quiet --locked --all-extras --group docs --python $(BIN)/python
	$(BIN)/zensical build --strict --clean

clean:
	rm -rf .venv site .cache collector/_build .deltawitness demo-output dist .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache
