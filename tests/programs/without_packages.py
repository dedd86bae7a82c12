"""Use what needs no extra in a process that cannot import the packages named on the command line.

Prints a JSON object: the error of each feature that needs an extra, the modules that cannot be imported,
and what the ledger holds.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from importlib.abc import MetaPathFinder
from pathlib import Path

MISSING = frozenset(sys.argv[2].split(","))


class MissingPackages(MetaPathFinder):
    """Raises for each import of a package that is to be missing."""

    def find_spec(self, name, path=None, target=None):
        """Raise as the import system does if the package is not installed."""
        if name in MISSING:
            msg = f"No module named {name!r}"
            raise ModuleNotFoundError(msg, name=name)


sys.meta_path.insert(0, MissingPackages())

import pyarrow as pa  # noqa: E402 - after the finder
from deltalake import DeltaTable, write_deltalake  # noqa: E402

import deltawitness  # noqa: E402
from deltawitness.exceptions import MissingExtraError  # noqa: E402

PROGRAMS = ("deltawitness.__main__", "deltawitness.activation.site", "deltawitness.bench.worker")
"""Modules that are programs."""


def modules():
    """Yield the name of each module of the package, without those that are programs."""
    top = Path(deltawitness.__file__).parent
    for path in sorted(top.rglob("*.py")):
        parts = path.relative_to(top.parent).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        if not name.startswith(PROGRAMS):
            yield name


def not_importable():
    """Return the modules whose import needs a missing package."""
    found = []
    for name in modules():
        try:
            import_module(name)
        except (ModuleNotFoundError, SystemExit):  # the command line exits with a message
            found.append(name)
    return found


def errors_of(features):
    """Return the message of each feature that needs an extra."""
    found = {}
    for name, use in features.items():
        try:
            use()
        except MissingExtraError as error:
            found[name] = str(error)
    return found


def write_everything(folder):
    """Write tables through delta-rs and through pipelines."""
    rows = pa.table({"id": [1, 2, 3]})
    write_deltalake(f"{folder}/t", rows)
    table = DeltaTable(f"{folder}/t")
    table.delete("id = 1")
    table.merge(rows, "s.id = t.id", "s", "t").when_not_matched_insert_all().execute()
    pipeline = deltawitness.ObservedWritePipeline(deltawitness.WritePipeline(), policy="p")
    pipeline.write(deltawitness.WriteRequest(source=rows, destination=f"{folder}/p"))
    pipeline.write(
        deltawitness.WriteRequest(source=rows, destination=f"{folder}/files", format="parquet")
    )


def main():
    """Write, then print the results."""
    folder = Path(sys.argv[1])
    settings = deltawitness.Settings(cache_root=str(folder / "root"))
    deltawitness.DeltaLakeInstrumentor().instrument(settings=settings)
    with deltawitness.run("nightly"):
        write_everything(folder)
    ledger = deltawitness.Ledger(settings=settings)
    written = ledger.query("SELECT operation, count(*) AS n FROM inventory GROUP BY 1 ORDER BY 1")
    plan = ledger.reconcile([f"{folder}/t"])
    request = deltawitness.WriteRequest(
        source=pa.table({"id": [1]}), destination=f"{folder}/json", format="json"
    )
    features = {
        **{name: lambda name=name: getattr(deltawitness, name) for name in deltawitness.__all__},
        "inventory": ledger.inventory,
        "runs": ledger.runs,
        "snapshots": ledger.snapshots,
        "json": lambda: deltawitness.WritePipeline().write(request),
        "views": deltawitness.metric_views,
        "sessions": deltawitness.DataFusionInstrumentor().instrument,
        "captured": import_module("deltawitness.testing").InMemoryTelemetry.create,
    }
    result = {
        "errors": errors_of(features),
        "written": {row["operation"]: row["n"] for row in written.to_pylist()},
        "runs": ledger.query("SELECT job, status FROM runs").to_pylist(),
        "missing": len(plan.missing),
        "problems": len(ledger.verify().findings),
        "metadata": deltawitness.read_commit_metadata(f"{folder}/t").metadata["cache_operation"],
        "modules": not_importable(),
    }
    deltawitness.DeltaLakeInstrumentor().uninstrument()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
