"""Store the plans of a session's writes, if the setting `keep_write_plans` is on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from deltawitness.internal_errors import report
from deltawitness.ledger.tables.locations import is_enabled, root_of
from deltawitness.observe import current_observer
from deltawitness.observe.write_context import WriteAttributes, current_write_context
from deltawitness.session.core.frames import FrameState, attach_state
from deltawitness.session.core.private_api import wrapped_plan
from deltawitness.session.core.snapshot import Registered
from deltawitness.session.core.unpatched import unpatched
from deltawitness.session.sql.name_binding import BoundCall, TextOrigin

if TYPE_CHECKING:
    from datafusion import SessionConfig

    from deltawitness.ledger.tables.schema import LedgerRoot
    from deltawitness.session.fingerprint.write_plan import PlannedStatement, WritePlan

__all__ = ["with_stored_plan"]


def with_stored_plan(
    attributes: WriteAttributes,
    rows: Any,
    state: FrameState | None,
    *,
    statement: tuple[BoundCall, Registered] | None = None,
    is_from_text: bool = True,
) -> WriteAttributes:
    """Return the attributes of a write with a function that stores its plan, if the settings ask for it.

    It never raises: an error is reported as an internal error, and no plan is stored.

    Args:
        attributes: the other attributes of the write.
        rows: the written rows: a frame, its logical plan, or a function that returns one of them.
        state: state of the observed frame that has this plan; None if the frame is not observed.
        statement: the SQL statement that writes them, and the table; None for a frame.
        is_from_text: whether the text in the state is the query of these rows.
    """
    try:
        observer = current_observer()
        if observer is None or not observer.settings.keep_write_plans or state is None:
            return attributes
        is_part = current_write_context() is not None  # the outer call stores the plan
        if is_part or not is_enabled(observer.settings) or not observer.is_on():
            return attributes
        from deltawitness.session.fingerprint.write_plan import plan_of_write  # noqa: PLC0415 - heavy

        state = state._replace(pending=None)
        rows = rows() if callable(rows) else rows
        plan = unpatched(rows, "logical_plan")() if hasattr(rows, "logical_plan") else rows
        frame = unpatched(state.ctx, "create_dataframe_from_logical_plan")(wrapped_plan(plan))
        text = _text_of(state) if is_from_text and statement is None else None
        planned = None if statement is None else _planned_statement(state, *statement)
        content = plan_of_write(attach_state(frame, state), state, text, planned)
        return replace(attributes, store_plan=partial(_store, root_of(observer.settings), content))
    except Exception as error:  # noqa: BLE001 - telemetry never changes the write
        report("plans", error)
        return attributes


def _text_of(state: FrameState) -> str | None:
    """Return the text from which a frame was planned.

    None without one, with parameters, or if it was planned with other settings than those of now.
    """
    origin = state.origin
    if not isinstance(origin, TextOrigin) or origin.is_name or not _is_of_now(origin.config, state):
        return None
    call = origin.call
    return None if call.param_values or call.named else call.text


def _is_of_now(config: SessionConfig | None, state: FrameState) -> bool:
    return config is state.session.settings.config_of(state.ctx)


def _planned_statement(
    state: FrameState, bound: BoundCall, target: Registered
) -> PlannedStatement | None:
    from deltawitness.session.fingerprint.write_plan import PlannedStatement  # noqa: PLC0415 - heavy

    has_parameters = bound.call.param_values or bound.call.named or bound.prepare is not None
    if has_parameters or not _is_of_now(bound.config, state):
        return None
    return PlannedStatement(bound.statement, target.name, target.version, dict(target.defaults))


def _store(root: LedgerRoot, plan: Callable[[], WritePlan], write_id: str) -> None:
    from deltawitness.ledger.tables.write_plans import store_plan_of_write  # noqa: PLC0415 - as above

    store_plan_of_write(root, write_id, plan().to_bytes())
