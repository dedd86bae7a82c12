"""The shell commands that mend findings."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from pathlib import Path

from deltawitness.answers.health.table_state import TableState
from deltawitness.commit.log import LOG_DIRECTORY
from deltawitness.locations import is_uri
from deltawitness.semconv import Env

__all__ = ["Repairs"]


class Repairs:
    """Makes commands for one table.

    Commands that write are observed: they run under `deltawitness run`, and a compaction takes the lease.

    Args:
        state: the table.
        root: the cache root that the question was about; None for that of the environment.
    """

    def __init__(self, state: TableState, root: str | None) -> None:
        self._place = state.shown_uri
        self._root = [] if root is None else ["--root", root]

    def write(self, call: str) -> str:
        """Return the command that calls a method of the table.

        Args:
            call: the call, such as `optimize.compact()`.
        """
        program = f"from deltalake import DeltaTable; DeltaTable({json.dumps(self._place)}).{call}"
        words = ["deltawitness", "run", "--job", "doctor", "--", "python", "-c", program]
        where = f"{Env.ROOT.value}={shlex.quote(self._root[1])} " if self._root else ""
        return where + shlex.join(words)

    def delete(self, names: Iterable[str]) -> str | None:
        """Return the command that deletes files of the log; None on an object store.

        Args:
            names: names of the files.
        """
        if is_uri(self._place):
            return None
        paths = [str(Path(self._place, LOG_DIRECTORY, name)) for name in names]
        return shlex.join(["rm", "-f", *paths])

    def delete_and_write(self, names: Iterable[str], call: str) -> str | None:
        """Return the command that deletes files of the log and calls a method; None on an object store.

        Args:
            names: names of the files.
            call: the call.
        """
        deletion = self.delete(names)
        return None if deletion is None else f"{deletion} && {self.write(call)}"

    def question(self, command: str, *options: str) -> str:
        """Return a command of deltawitness about the table.

        Args:
            command: the command.
            *options: its options, after the table.
        """
        return shlex.join(["deltawitness", command, self._place, *options, *self._root])

    def question_of(self, command: str, *options: str) -> str:
        """Return a command of deltawitness with the table as an option.

        Args:
            command: the command.
            *options: further options.
        """
        words = ["deltawitness", command, "--table", self._place]
        return shlex.join([*words, *options, *self._root])
