"""A call of `SessionContext.sql`, kept so that its text can be planned again."""

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
    """What `SessionContext.sql` was called with.

    Attributes:
        ctx: the context.
        text: the statement.
        options: what kinds of statements are allowed.
        param_values: values of `$name`.
        named: texts and frames that stand in for `$name` in the statement.
    """

    ctx: SessionContext
    text: str
    options: SQLOptions | None = None
    param_values: Mapping[str, Any] | None = None
    named: Mapping[str, Any] = MappingProxyType({})

    def plan(self, text: str | None = None) -> DataFrame:
        """Return the frame of the statement, or of another one with the same parameters.

        The engine's own errors leave as they are.
        """
        frame: DataFrame = unpatched(self.ctx, "sql")(
            self.text if text is None else text,
            self.options,
            None if self.param_values is None else dict(self.param_values),
            **self.named,
        )
        return frame

    def owned(self) -> SqlCall:
        """Return the call with parameters of its own: the caller may change its objects afterwards."""
        if not self.param_values and not self.named:
            return self
        values = {name: copy_of(value) for name, value in (self.param_values or {}).items()}
        return self._replace(param_values=values or None, named=dict(self.named))

    def spelled(self) -> SqlCall:
        """Return the call with the texts that stand for names put into the statement.

        DataFusion puts them in while it plans; what is read here must have them in, too.
        """
        texts = {f"${name}": str(v) for name, v in self.named.items() if not is_frame(v)}
        if not texts:
            return self
        left = {name: value for name, value in self.named.items() if is_frame(value)}
        text = Words(self.text).with_words(texts)
        return SqlCall(self.ctx, text, self.options, self.param_values, left)

    def with_numbers(self) -> SqlCall:
        """Return the call with `$1`, `$2`, ... for `$name`: INSERT INTO plans no other in VALUES."""
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
    """Return a parameter's value as one that its owner cannot change any more."""
    is_mutable = isinstance(value, list | dict | set | bytearray) or hasattr(value, "__array__")
    return copy.deepcopy(value) if is_mutable else value


def is_frame(value: object) -> bool:
    """Tell whether a value is a frame, which stands for a table in a statement."""
    return hasattr(value, "logical_plan")
