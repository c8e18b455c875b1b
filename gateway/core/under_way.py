"""A call that is under way: what it is shielded from, who watches it, and what breaks it off."""

from types import TracebackType

from gateway.core import scopes
from gateway.core.asking import Inquiry
from gateway.core.call import Intent
from gateway.core.errors import GatewayError, OutcomeUnknown, ToolFailed
from gateway.core.flow import WITHDRAWN
from gateway.core.kills import Watch
from gateway.core.ports import Entry, Ports
from gateway.core.tool import EffectClass


class carried_out:  # noqa: N801 -- a bracket, and cheaper than a generator's
    """What is shielded, watched and stopped: from the durable intent to the durable completion.

    Not the bare scope: by its type it may swallow an error, and the door could then end without an answer.
    """

    __slots__ = ("_flow", "_inquiry", "_intent", "_scope", "_watch", "_watching")
    _watch: Watch

    def __init__(self, intent: Intent, entry: Entry, ports: Ports) -> None:
        self._intent = intent
        self._scope = scopes.scope(shield=intent.shielded)
        self._watching = ports.kills.watch(intent, self._scope.cancel)
        self._flow = intent.call.flow
        self._inquiry = None if self._flow is None else Inquiry(intent.quota.permit.target, entry, ports)

    def __enter__(self) -> Watch:
        self._watch = self._watching.__enter__()  # first, as it may refuse; nothing is waited for until all are entered
        self._scope.__enter__()
        if self._flow is not None:
            self._flow.begin(self._scope.cancel, self._inquiry)
        return self._watch

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._flow is not None:
            self._flow.end()
        self._watching.__exit__(kind, error, trace)
        if self._scope.__exit__(kind, error, trace):
            flow = self._flow
            if flow is not None and flow.is_withdrawn:
                raise _withdrawn(self._intent, flow.why)
            raise self._watch.broken_off()


def _withdrawn(intent: Intent, why: str) -> GatewayError:
    # The record must not say of a client what the gateway did.
    words = "the client cancelled the call" if why == WITHDRAWN else "it found no place to wait for its client"
    if intent.tool.effect is EffectClass.READ:
        return ToolFailed(words, cause_code=why)
    return OutcomeUnknown(f"{words}; an effect may have happened", cause_code=why)
