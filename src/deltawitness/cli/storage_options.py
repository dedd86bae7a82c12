"""The option `--storage-option`, which adds to the storage options of the environment."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from deltawitness.cli.console import exit_on_error
from deltawitness.command_interrupt import INTERRUPTED
from deltawitness.semconv import Env
from deltawitness.settings import Settings

__all__ = ["with_storage_options"]

_PARAMETER = "storage_option"

_OPTION = typer.Option(
    "--storage-option",
    metavar="NAME=VALUE",
    help="Storage option, repeatable; adds to DELTAWITNESS_STORAGE_OPTIONS, which keeps secrets out of"
    " the process list.",
    show_default=False,
)

_Options = Annotated[list[str] | None, _OPTION]


def with_storage_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that also has `--storage-option`.

    The values are set in the environment of this process, from which the settings read them. A program
    that the command runs gets them too. No message, log record or row contains them.

    Args:
        command: the function of the command.
    """

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        given = kwargs.pop(_PARAMETER, None)
        if given:
            _add_to_environment(given)
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            # Not all releases of Typer exit with this code.
            raise typer.Exit(INTERRUPTED) from None

    signature = inspect.signature(command, eval_str=True)
    added = inspect.Parameter(
        _PARAMETER, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_Options
    )
    parameters = [*signature.parameters.values(), added]
    vars(wrapped)["__signature__"] = signature.replace(parameters=parameters)
    wrapped.__annotations__ = {each.name: each.annotation for each in parameters}
    del wrapped.__wrapped__  # the signature is that of the wrapper
    return wrapped


def _add_to_environment(given: list[str]) -> None:
    options = dict(_parse(text) for text in given)
    with exit_on_error("the settings cannot be read"):
        merged = {**(Settings.from_env().storage_options or {}), **options}
    os.environ[Env.STORAGE_OPTIONS] = json.dumps(merged)


def _parse(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not (name and separator):
        msg = "--storage-option: expected NAME=VALUE"  # without the text, which may be a secret
        raise typer.BadParameter(msg)
    return name, value
