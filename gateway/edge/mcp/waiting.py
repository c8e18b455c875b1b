"""``gateway__wait_approval``: how an agent waits for a call of its own that people must approve. On ``/mcp`` only.

It reaches no tool: all it can tell is where the agent's own parked call stands, and what came of it.
"""

from collections.abc import Mapping
from typing import Any

from gateway.core import pipeline
from gateway.core.call import Answer, Call, Principal
from gateway.core.errors import InvalidArguments, Killed, NotFound
from gateway.core.ports import Ports

SERVER = "gateway"
WIRE_NAME = f"{SERVER}__wait_approval"
FQN = f"{SERVER}.wait_approval"
_MOST_S = 60
_USUAL_S = 20
_MAX_ID = 64

_DEFINITION: Mapping[str, Any] = {
    "name": WIRE_NAME,
    "title": "Wait for an approval",
    "description": "Wait until people have decided on a call of yours that is pending, and get its result. "
    "Use it after a call answered with status `pending`; it executes nothing itself.",
    "inputSchema": {
        "type": "object",
        "properties": {
            "approval_id": {"type": "string", "description": "From the pending answer."},
            "timeout_s": {"type": "integer", "minimum": 0, "maximum": _MOST_S, "description": f"[{_USUAL_S}]"},
        },
        "required": ["approval_id"],
        "additionalProperties": False,
    },
    "annotations": {"readOnlyHint": True, "destructiveHint": False, "idempotentHint": True, "openWorldHint": False},
}


def served() -> dict[str, Any]:
    """The definition as clients get it."""
    return dict(_DEFINITION)


async def wait(call: Call, principal: Principal, ports: Ports) -> Answer:
    """What came of a parked call of the caller's own.

    Raises:
        InvalidArguments: not such arguments, or not an approval of theirs.
        Pending: nothing yet.
        Killed: they, the tool, the run or everything is stopped.
        GatewayError: as the parked call ended.
    """
    given = call.arguments.value
    approval_id, patience = given.get("approval_id"), given.get("timeout_s", _USUAL_S)
    fits = isinstance(approval_id, str) and len(approval_id) <= _MAX_ID and given.keys() <= {"approval_id", "timeout_s"}
    if not fits or isinstance(patience, bool) or not isinstance(patience, int) or not 0 <= patience <= _MOST_S:
        raise InvalidArguments(f"give approval_id, and timeout_s from 0 to {_MOST_S}", cause_code="schema")
    try:
        action = await ports.approvals.check_own(principal, str(approval_id))
    except NotFound:
        raise InvalidArguments("no such approval of yours", cause_code="approval") from None
    try:
        await ports.kills.check_parked(action)
        answer = await ports.approvals.outcome(action.id, patience)
        await ports.kills.check_parked(action)  # which may have come meanwhile
    except Killed as error:
        await pipeline.refuse(call, error, ports)
    return answer
