"""The arguments of a `SessionContext.sql` call, stored so that its text can be planned again."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from deltawitness.session.core.tokens import Words
from deltawitness.session.core.unpatched import unpatched

if TYPE_CHECKING:
    from datafusion import DataFrame, SessionContext, SQLOptions

__all__ = ["SqlCall"]


class SqlCall(NamedTuple):
    """The arguments of a `SessionContext.sql` call.

    Attributes:
        ctx: the context.
        text: the statement.
        options: the kinds of statements that are allowed.
        param_values: values of `$name` parameters.
        named: texts and frames that replace `$name` in the statement.
    """

    ctx: SessionContext
    text: str
    options: SQLOptions | None = None
    param_values: Mapping[str, Any] | None = None
    named: Mapping[str, Any] = MappingProxyType({})

    def plan(self, text: str | None = None) -> DataFrame:
        """Plan the statement, or another text with the same parameters, and return its frame.

        Errors of the engine are raised unchanged.
        """
        frame: DataFrame = unpatched(self.ctx, "sql")(
            self.text if text is None else text,
            self.options,
            None if self.param_values is None else dict(self.param_values),
            **self.named,
        )
        return frame

    def with_copied_parameters(self) -> SqlCall:
        """Return the call with copies of its parameters, because the caller may change the originals."""
        if not self.param_values and not self.named:
            return self
        values = {name: copy_of(value) for name, value in (self.param_values or {}).items()}
        return self._replace(param_values=values or None, named=dict(self.named))

    def with_inlined_texts(self) -> SqlCall:
        """Return the call with each `$name` that has a text replaced by that text.

        DataFusion replaces them while it plans; the code that parses the statement needs the same text.
        """
        texts = {f"${name}": str(v) for name, v in self.named.items() if not is_frame(v)}
        if not texts:
            return self
        left = {name: value for name, value in self.named.items() if is_frame(value)}
        text = Words(self.text).with_words(texts)
        return SqlCall(self.ctx, text, self.options, self.param_values, left)

    def with_numbered_parameters(self) -> SqlCall:
        """Return the call with `$name` parameters renamed to `$1`, `$2`, ...

        DataFusion plans only numbered parameters in the VALUES of an INSERT INTO.
        """
        names = list(self.param_values or {})
        if not names or any(name.isdigit() for name in names):
            return self
        numbers = {f"${name}": f"${place}" for place, name in enumerate(names, 1)}
        values = {
            str(place): (self.param_values or {})[name] for place, name in enumerate(names, 1)
        }
        text = Words(self.text).with_words(numbers)
        return SqlCall(self.ctx, text, self.options, values, self.named)


def copy_of(value: Any) -> Any:
    """Return a deep copy of a mutable parameter value; an immutable value unchanged."""
    is_mutable = isinstance(value, list | dict | set | bytearray) or hasattr(value, "__array__")
    return copy.deepcopy(value) if is_mutable else value


def is_frame(value: object) -> bool:
    """Return whether a value is a frame, which replaces a table name in a statement."""
    return hasattr(value, "logical_plan")
