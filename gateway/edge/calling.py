"""The one place where a surface hands a call to the pipeline; it is cancelled when its client leaves."""

from contextlib import AbstractContextManager, nullcontext

from anyio import CancelScope

from gateway.core import pipeline
from gateway.core.call import Answer, Call
from gateway.core.errors import GatewayError, OutcomeUnknown, Pending, Unavailable
from gateway.core.flow import Flow
from gateway.core.ports import Ports


async def carry_out(call: Call, ports: Ports, within: "AbstractContextManager[None, None]") -> Answer:
    """The answer to ``call``; for one that was parked and carried out since, what came of it.

    ``within`` is the bracket it is done in: ``disconnect.Watched``, or none for a call whose client comes and goes.

    Raises:
        GatewayError: as ``pipeline.handle`` does, or as the parked call ended.
        ClientGone: as the bracket does, where nothing had been committed that must finish.
    """
    with within:
        try:
            return await pipeline.handle(call, ports)
        except Pending as parked:
            return await _outcome(parked.approval_id, call.flow, ports)


async def _outcome(approval_id: str, flow: Flow | None, ports: Ports) -> Answer:
    # Who takes the call back now is told where it stands: people may let it go all the same, or have done so already,
    # and who heard that nothing was done would make it again.
    with CancelScope() as scope, nullcontext() if flow is None else flow.under_way(scope.cancel):
        return await ports.approvals.outcome(approval_id, ports.settings.hold_s)
    return await ports.approvals.outcome(approval_id, 0)


def broken_off(*, may_have_acted: bool) -> GatewayError:
    """What is said to a caller whose request the server breaks off because it stops."""
    if may_have_acted:
        return OutcomeUnknown("the gateway stopped during the call; an effect may have happened", cause_code="stopped")
    return Unavailable("the gateway is stopping; nothing was done", retry_after=1, cause_code="stopping")
