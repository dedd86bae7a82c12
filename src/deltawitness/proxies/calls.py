"""A call of `SessionContext.sql`, kept so that its text can be planned again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deltawitness.proxies.originals import original

if TYPE_CHECKING:
    from datafusion import DataFrame, SessionContext, SQLOptions

__all__ = ["SqlCall"]


@dataclass(frozen=True, slots=True)
class SqlCall:
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
    named: Mapping[str, Any] = field(default_factory=dict)

    def plan(self, text: str | None = None) -> DataFrame:
        """Return the frame of the statement, or of another one with the same parameters.

        The engine's own errors leave as they are.
        """
        frame: DataFrame = original(self.ctx, "sql")(
            self.text if text is None else text,
            self.options,
            None if self.param_values is None else dict(self.param_values),
            **self.named,
        )
        return frame
