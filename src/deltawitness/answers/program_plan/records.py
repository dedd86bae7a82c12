"""The files of plans: where they are, and how a plan is written and found."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from deltawitness.answers.program_plan.values import ProgramPlan
from deltawitness.exceptions import PlanError
from deltawitness.ledger.tables.locations import absolute_root, spool_folder_of
from deltawitness.locations import local_path
from deltawitness.semconv import PROGRAM_PLANS_DIRECTORY
from deltawitness.settings import Settings

__all__ = ["find_plan", "plans_folder", "write_plan"]

_FILE = "plan.json"
_SHOWN = 5


def plans_folder(settings: Settings) -> Path:
    """Return the local folder of the plans: under a local cache root, else with the spools of the root."""
    root = absolute_root(settings)
    local = local_path(root)
    place = spool_folder_of(settings, root) if local is None else Path(local)
    return place / PROGRAM_PLANS_DIRECTORY


def write_plan(folder: Path, plan: ProgramPlan, files: Mapping[str, str]) -> None:
    """Write a plan, for its owner only: arguments of a program may be secret.

    Args:
        folder: the folder of this plan.
        plan: the plan.
        files: hashes of the files that are arguments of the program, by path.
    """
    text = json.dumps({"plan": asdict(plan), "files": files}, indent=2, default=_as_text)
    descriptor = os.open(folder / _FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text + "\n")


def _as_text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def find_plan(settings: Settings, prefix: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a plan as JSON values, and the hashes of the files that are arguments of its program.

    Args:
        settings: the settings with the cache root.
        prefix: id of the plan, or an unambiguous prefix of it.

    Raises:
        PlanError: there is no such plan, or there are several.
        OSError: the plan cannot be read.
    """
    ids = sorted(each.parent.name for each in plans_folder(settings).glob(f"*/{_FILE}"))
    found = [each for each in ids if each == prefix] or [
        each for each in ids if prefix and each.startswith(prefix)
    ]
    if len(found) != 1:
        many = f"{len(found)} plans begin with {prefix}: {', '.join(found[:_SHOWN])}"
        msg = many if found else f"no plan begins with {prefix} in {plans_folder(settings)}"
        raise PlanError(msg)
    document = json.loads((plans_folder(settings) / found[0] / _FILE).read_text(encoding="utf-8"))
    return document["plan"], document["files"]
