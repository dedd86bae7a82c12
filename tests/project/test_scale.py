"""`docs/scale.md` shows what the simulation derives from the recorded measurements."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def simulation():
    spec = importlib.util.spec_from_file_location("scale", ROOT / "tools/scale_simulation.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["scale"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["scale"]


@pytest.mark.slow
def test_the_page_has_the_cases_of_few_writers(simulation, monkeypatch):
    """The table of the page has the simulated cases."""
    monkeypatch.setattr(simulation, "WRITERS", simulation.WRITERS[:1])
    recorded = json.loads((ROOT / "tools/scale_measurements.json").read_text())
    table = simulation.cases_table(simulation.cases(recorded))
    assert set(table.splitlines()) < set(simulation.PAGE.read_text().splitlines())


@pytest.mark.slow
def test_the_page_and_its_plots_are_those_of_the_simulation(simulation, size):
    """`python tools/scale_simulation.py --write` changes nothing."""
    if not size(1, 1, 0):
        pytest.skip("takes 20 s: TEST_SIZE=ci")
    tables, plots = simulation.outputs()
    page = simulation.PAGE.read_text()
    assert simulation.with_tables(page, tables) == page
    for name, content in plots.items():
        assert (simulation.PLOTS / name).read_text() == content, name
        assert f"(assets/{name})" in page


def test_a_simulation_with_one_seed_repeats(simulation):
    """Another seed changes it."""
    more = {"drainers": 20, "tables": 2, "commit": 0.3, "retry": 0.5, "seconds": 30.0}
    first = simulation.simulate.__wrapped__(**more, seed=1)
    assert first == simulation.simulate.__wrapped__(**more, seed=1)
    assert first != simulation.simulate.__wrapped__(**more, seed=2)


def test_a_lone_writer_has_no_conflicts_and_a_crowd_has(simulation):
    """Commits of one table take turns, so a crowd commits hardly more often than one writer."""
    more = {"tables": 1, "commit": 0.1, "retry": 0.5, "interval": 0.0, "seconds": 40.0}
    one, crowd = (simulation.simulate(drainers=count, **more) for count in (1, 30))
    assert one.conflicts == 0
    assert 180 < one.commits <= 250
    assert crowd.conflicts > 0
    assert crowd.commits < 4 * one.commits


def test_shards_divide_the_conflicts(simulation):
    """The same drains on 16 tables conflict less, and rows are visible sooner."""
    more = {"drainers": 100, "commit": 0.3, "retry": 0.5, "seconds": 60.0}
    main, shards = (simulation.simulate(tables=tables, **more) for tables in (1, 16))
    assert shards.conflicts < main.conflicts
    assert shards.lag(0.95) < main.lag(0.95)
    assert shards.commits > main.commits
