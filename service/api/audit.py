"""The audit log's entries: who asked for a change, of what, from where, and what came of it."""

from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.types import Scope

from service.api.dependencies import ApiParts
from service.api.identity import address_of
from service.domain.access import AuditEntry, Caller, Source

_MOST_CHARACTERS = 500


def begin(request: Request, caller: Caller, *, is_reading: bool) -> None:
    """Say whose request it is, and whether it can change anything: from here on it may be written down."""
    request.state.caller, request.state.is_reading = caller, is_reading


def concerns(request: Request, project: str | None) -> None:
    """Say whose that is which the request changes, where the caller sees every project; None is no single one's."""
    request.state.concerned = project


async def note(scope: Scope, status: int, parts: ApiParts) -> None:
    """Write down a request that may have changed something. What a stranger sent is not: it changed nothing."""
    state = scope.get("state", {})
    caller: Caller | None = state.get("caller")
    if caller is None or state["is_reading"]:
        return
    request = Request(scope)
    entry = AuditEntry(
        at=parts.clock.now(),
        caller=_name_of(request, caller),
        role=caller.role,
        project=caller.project or state.get("concerned"),
        token=caller.token,
        action=_action_of(scope),
        target=scope["path"][:_MOST_CHARACTERS],
        status=status,
        address=address_of(request),
    )
    await run_sync(parts.store.audit.add, entry)


def _name_of(request: Request, caller: Caller) -> str:
    """The operators among each other are who they say they are."""
    said = request.headers.get("Tuneyard-User") if caller.source is Source.OPERATOR else None
    return (said or caller.name)[:64]


def _action_of(scope: Scope) -> str:
    route = scope.get("route")
    name = getattr(route, "operation_id", None) or getattr(route, "name", None)
    return str(name or scope["method"])
