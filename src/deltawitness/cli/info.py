"""`deltawitness info`: a description of this installation for a bug report."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from deltawitness.cli.console import JsonOption, print_json
from deltawitness.cli.ledger_option import RootOption

__all__ = ["info_command", "version_line"]


def version_line() -> str:
    """Return the version of deltawitness, and after it those of the engines, in one line.

    The first word is the version of deltawitness.
    """
    from deltawitness.installation.packages import engine_versions  # noqa: PLC0415 - rarely needed
    from deltawitness.semconv import WITNESS_VERSION  # noqa: PLC0415 - as above

    found = (f"{name} {version or 'not installed'}" for name, version in engine_versions().items())
    return f"{WITNESS_VERSION} ({', '.join(found)})"


def info_command(
    paths: Annotated[
        bool, typer.Option("--paths", help="Show locations too, without credentials.")
    ] = False,
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Describe this installation for a bug report: versions, seams, settings, ledger; no secrets."""
    from deltawitness.installation.info import info  # noqa: PLC0415 - other commands do not need it

    result = info(root=root, paths=paths)
    if as_json:
        print_json(asdict(result))
    else:
        print(result)
