"""From the bytes of a result to what the pipeline checks: value and bytes must say the same."""

import json
from typing import Any, Final

import msgspec

from connectors.mcp.faults import Lost, Refused
from gateway.core.call import Lease, Raw
from gateway.core.mcpwire.eras import RESULT_COMPLETE, RESULT_INPUT_REQUIRED
from gateway.core.mcpwire.jsonrpc import members

_DECODER: Final = msgspec.json.Decoder(dict[str, Any])
_ENCODER: Final = msgspec.json.Encoder()
_PLAINLY: Final = msgspec.Raw(_ENCODER.encode(RESULT_INPUT_REQUIRED))


def decode(result: bytes) -> dict[str, Any]:
    """The object in ``result``.

    A key that occurs twice is refused: what was checked and redacted would be one of the two, and what a client reads
    from the bytes might be the other.

    Raises:
        Lost: no JSON object, or one with a duplicate key.
    """
    try:
        value = _DECODER.decode(result)
        # What comes back byte for byte had no duplicate; most upstreams write compact JSON, so this is the usual way.
        if _ENCODER.encode(value) != result:
            _STRICT.decode(result.decode())
    except (ValueError, RecursionError):
        raise Lost("garbage") from None
    return value


def raw(lease: Lease, result: bytes) -> Raw:
    """The result of a call.

    Raises:
        Lost: too long for the tool, or not a JSON object.
        Refused: the upstream wants input of a caller who can give none, or answers with a kind of result that is not
            carried here.
    """
    if len(result) > lease.intent.tool.limits.max_output_bytes:
        raise Lost("output_too_large")
    value = decode(result)
    kind = value.get("resultType", RESULT_COMPLETE)
    if kind != RESULT_COMPLETE:
        _check_wanted(kind, result, lease)
    return Raw(lease, result, value)


def _check_wanted(kind: Any, result: bytes, lease: Lease) -> None:
    # Written plainly: whoever looks at the bytes would take another spelling for a finished result, whose contract is
    # not asked of what wants input.
    if kind != RESULT_INPUT_REQUIRED or members(result)["resultType"] != _PLAINLY:
        raise Refused("result_type_unsupported")
    flow = lease.intent.call.flow
    if flow is None or not flow.wants.capabilities:
        raise Refused("input_required_unsupported")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate key")
    return members


_STRICT: Final = json.JSONDecoder(object_pairs_hook=_once)
