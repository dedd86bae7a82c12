# Two commands on a fresh machine: `make demo` and `make test`. Nothing but Python >= 3.11, pip and
# the package index is needed: the environment is made in .venv, from uv.lock. `make help` lists all.

PYTHON ?= python3
UV_VERSION := 0.13.9
BIN := .venv/bin
READY := .venv/.ready

# Processes that run tests at the same time, a test file in one of them.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -q
PARALLEL := --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

# Tests start many programs: compile what they import once, not in each of them.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help all test test-fast test-collector test-long coverage demo bench check lint types layers \
	collector collector-test clean

help:  ## list the targets
	@awk -F ':.*## *' '/^[a-z-]+:.*##/ { printf "%-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

all: check test  ## check and test

$(READY): pyproject.toml uv.lock
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed"'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv==$(UV_VERSION)
	$(BIN)/uv sync --quiet --locked --all-extras --compile-bytecode --python $(BIN)/python
	touch $@

test: $(READY)  ## every test but those of the Collector, in WORKERS=2 processes
	$(PYTEST) $(PARALLEL) --ignore=tests/collector

test-fast: $(READY)  ## the tests without a mark for slow ones
	$(PYTEST) $(PARALLEL) --ignore=tests/collector -m 'not slow and not remote and not interop'

test-collector: $(READY) collector  ## the tests of the Collector; builds it (needs Go)
	$(PYTEST) tests/collector

collector-test: test-collector

test-long: $(READY) collector  ## every test, with the full sizes of fault and property tests
	DELTAWITNESS_TEST_SIZE=long $(PYTEST)

coverage: $(READY) collector  ## every test, with branch coverage of at least 95 %
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q $(PARALLEL)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

collector: $(READY)  ## build the Collector of collector/, and the Prometheus that tests its rules
	PATH="$(abspath $(BIN)):$$PATH" collector/build.sh

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

check: lint types layers  ## everything that is not a test

lint: $(READY)  ## ruff: rules and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(READY)  ## mypy
	$(BIN)/mypy

layers: $(READY)  ## the layers of pyproject.toml
	$(BIN)/lint-imports

clean:  ## remove what was made, the environment too
	rm -rf .venv collector/_build .deltawitness demo-output dist .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache
