"""Calls in several rounds: an upstream wants input first, and the call is made again with it.

A stateless client keeps the state between two rounds. It is sealed: the client can neither read nor change it, and it
is good for the same principal, actors and run making the same call again, for a while. Each round is a call of its own:
decided, recorded and limited like any other.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.core import canonical
from gateway.core.call import Call, Continuation, Principal
from gateway.core.canonical import Arguments, Json
from gateway.core.errors import InvalidArguments
from gateway.core.mcpwire import asking, eras, jsonrpc
from gateway.core.mcpwire.asking import Question
from gateway.core.ports import Clock
from gateway.edge.faults import InvalidParams

MOST_ROUNDS = 8
KEY_BYTES = 32
_TTL_US = 600_000_000
_NONCE_BYTES = 12
_MAX_STATE = 256 * 1024
_STATE, _ANSWERS = "requestState", "inputResponses"


class _Kept(msgspec.Struct, array_like=True):
    until_us: int
    state: str | None
    asked: dict[str, tuple[str, dict[str, Any]]]
    parked: str = ""


_DECODER = msgspec.json.Decoder(_Kept)


def wants_input(body: bytes) -> bool:
    """Whether the result of a call asks for input first."""
    if body.find(b"input_required") < 0:  # "in" first asks whether a text is a number
        return False
    return jsonrpc.members(body).get("resultType") == msgspec.Raw(b'"%b"' % eras.RESULT_INPUT_REQUIRED.encode())


def asked(body: bytes) -> tuple[dict[str, Question], str | None]:
    """What such a result asks, and the upstream's own state."""
    result = msgspec.json.decode(body)
    return asking.questions(result), result.get(_STATE)


@dataclass(frozen=True, slots=True)
class Brought:
    """What a client comes back with.

    Attributes:
        continuation: the answers, and what they answer.
        parked: the name of the call that waits for them; empty = they are for a call of their own.
    """

    continuation: Continuation
    parked: str


@dataclass(frozen=True, slots=True)
class Rounds:
    """Seals and opens.

    Attributes:
        clock: the time, and chance.
        key: ``KEY_BYTES``, the same at every gateway on one log.
    """

    clock: Clock
    key: bytes

    def sealed(self, body: bytes, call: Call, owner: Principal, parked: str = "") -> bytes:
        """The result that asks, as a client gets it.

        Args:
            body: the result.
            call: whose.
            owner: the caller.
            parked: the name by which the call is taken up again; empty = it is another call.
        """
        questions, state = asked(body)
        said = {key: (q.method, dict(q.params)) for key, q in questions.items()}
        kept = _Kept(self.clock.now_us() + _TTL_US, state, said, parked)
        nonce = self.clock.random(_NONCE_BYTES)
        box = nonce + AESGCM(self.key).encrypt(nonce, msgspec.json.encode(kept), _bound(call, owner))
        members: dict[str, Any] = dict(jsonrpc.members(body))
        return jsonrpc.encode(members | {_STATE: base64.urlsafe_b64encode(box).decode()})

    def brought(self, params: Json, call: Call, owner: Principal) -> "Brought | None":
        """What a request brings for the upstream that asked, or None where it is a call of its own.

        Raises:
            InvalidParams: a state that was not sealed here for this call, or is too old; answers that are none.
        """
        members = params.value
        state = members.get(_STATE)
        if state is None and members.get(_ANSWERS) is None:
            return None
        said = params.member(_ANSWERS)
        kept = self._opened(state, call, owner)
        if said.value is not None and not isinstance(said.value, dict):
            raise _odd("params.inputResponses must be an object", _ANSWERS)
        questions = {key: Question(*question) for key, question in kept.asked.items()}
        answers = {key: _answer(said.member(key)) for key in questions if key in (said.value or {})}
        return Brought(Continuation(kept.state, questions, answers), kept.parked)

    def _opened(self, state: object, call: Call, owner: Principal) -> _Kept:
        try:
            if not isinstance(state, str) or len(state) > _MAX_STATE:
                raise ValueError
            box = base64.b64decode(state, altchars=b"-_", validate=True)
            text = AESGCM(self.key).decrypt(box[:_NONCE_BYTES], box[_NONCE_BYTES:], _bound(call, owner))
        except (ValueError, binascii.Error, InvalidTag):
            raise _odd("params.requestState was not made here for this call", _STATE) from None
        kept = _DECODER.decode(text)
        if kept.until_us < self.clock.now_us():
            raise _odd("params.requestState is too old: make the call again without it", _STATE)
        return kept


def _answer(said: Json) -> Arguments:
    try:
        if said.value is None:
            raise InvalidArguments("null")
        return canonical.arguments(said)
    except InvalidArguments:
        raise _odd("params.inputResponses: each answer is an object", _ANSWERS) from None


def _bound(call: Call, owner: Principal) -> bytes:
    # Who acts, and in which run: what one run was told is not another one's, though one agent works in both.
    facts: Mapping[str, str | Sequence[str]] = {
        "owner": owner.key,
        "actors": owner.delegation,
        "run": owner.run or call.run or "",
        "tool": call.tool,
        "arguments": call.arguments.digest,
    }
    return canonical.encode(facts)


def _odd(detail: str, member: str) -> InvalidParams:
    return InvalidParams(detail, cause_code="request_state" if member == _STATE else "input_responses")
