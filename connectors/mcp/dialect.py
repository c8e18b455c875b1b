"""What is said to an upstream in each era, as bytes: arguments are copied in verbatim, as they were decided on."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Final

import msgspec

from connectors.mcp.faults import Lost, Refused
from gateway.core.call import Call
from gateway.core.mcpwire import eras
from gateway.core.mcpwire.eras import Era
from gateway.core.mcpwire.jsonrpc import encode
from gateway.core.tool import Kind, Tool, kind_of

_VERSION_HEADER_SINCE: Final = "2025-06-18"
_ASKS_NOTHING: Final = encode({eras.META_CAPABILITIES: {}})[1:]
_METHODS: Final[Mapping[Kind, str]] = {
    Kind.TOOL: "tools/call",
    Kind.PROMPT: "prompts/get",
    Kind.RESOURCE: "resources/read",
    Kind.COMPLETION: "completion/complete",
}
# Their arguments are members of the ``params`` themselves.
_SPREAD: Final = frozenset({Kind.RESOURCE, Kind.COMPLETION})


@dataclass(frozen=True)
class Dialect:
    """How to speak to one upstream.

    Attributes:
        era: which era.
        version: the revision agreed on.
        meta: the inside of each request's ``_meta``, but for what the caller can be asked; empty in the handshake era.
        offers: what besides tools the upstream says that it has (``prompts``, ``resources`` ...).
    """

    era: Era
    version: str
    meta: bytes = b""
    offers: frozenset[str] = frozenset()

    def params(self, members: bytes, said: Mapping[str, Any] | None = None) -> bytes:
        """The ``params`` object of a request.

        Args:
            members: the inside of a JSON object, without its braces.
            said: what stands in its ``_meta`` besides.
        """
        if self.stateless:
            told = encode({eras.META_CAPABILITIES: {}, **said})[1:] if said else _ASKS_NOTHING
            meta = b'"_meta":{%b,%b' % (self.meta, told)
        else:
            meta = b'"_meta":%b' % encode(said) if said else b""
        return b"{%b%b%b}" % (members, b"," if members and meta else b"", meta)

    @cached_property
    def stateless(self) -> bool:
        """Whether each request stands alone."""
        return self.era is Era.STATELESS

    @property
    def names_version(self) -> bool:
        """Whether HTTP requests carry the version header."""
        return self.version >= _VERSION_HEADER_SINCE


@dataclass(frozen=True, slots=True)
class Client:
    """What the gateway says of itself upstream."""

    name: str = "ostiary"
    version: str = "0"

    def stateless(self, version: str = eras.LATEST_STATELESS) -> Dialect:
        """The stateless dialect at ``version``."""
        meta = {
            eras.META_VERSION: version,
            eras.META_CLIENT: {"name": self.name, "version": self.version},
        }
        return Dialect(Era.STATELESS, version, encode(meta)[1:-1])

    def handshake_params(self, capabilities: Mapping[str, Any] | None = None) -> bytes:
        """The ``params`` of ``initialize``; ``capabilities`` is what the callers of its session can be asked."""
        return encode(
            {
                "protocolVersion": eras.LATEST_HANDSHAKE,
                "capabilities": capabilities or {},
                "clientInfo": {"name": self.name, "version": self.version},
            }
        )


def call_method(kind: Kind) -> str:
    """The method that carries a call of a tool of this kind out."""
    return _METHODS[kind]


def call_members(tool: Tool, call: Call) -> bytes:
    """The inside of the ``params`` of ``call_method``: canonical arguments, and what the upstream asked for before.

    Of a read the address is its argument, and so the one that was decided on.
    """
    arguments = call.arguments.canonical
    members = _opening(tool.name) + (arguments[1:-1] if tool.kind in _SPREAD else arguments)
    brought = call.continuation
    if brought is None:
        return members
    answers = b",".join(b"%b:%b" % (encode(key), said.canonical) for key, said in brought.answers.items())
    state = b"" if brought.state is None else b',"requestState":' + encode(brought.state)
    return b'%b,"inputResponses":{%b}%b' % (members, answers, state)


@lru_cache(maxsize=1024)  # one goes with every call
def _opening(name: str) -> bytes:
    # What stands before the arguments of a call of the tool ``name``.
    kind = kind_of(name)
    own = name.removeprefix(kind.prefix)
    if kind is Kind.RESOURCE:
        return b""
    if kind is Kind.COMPLETION:
        return b'"ref":%b,' % encode(_reference(own))
    return b'"name":%b,"arguments":' % encode(own)


def call_name(tool: Tool) -> str | None:
    """What the stateless era repeats of a call in its name header; None = nothing."""
    if tool.kind is Kind.COMPLETION:
        return None
    return tool.own_name if tool.uri is None else tool.uri


def _reference(name: str) -> dict[str, str]:
    kind = kind_of(name)
    own = name.removeprefix(kind.prefix)
    return {"type": "ref/prompt", "name": own} if kind is Kind.PROMPT else {"type": "ref/resource", "uri": own}


def handshake_dialect(result: bytes) -> Dialect:
    """The dialect an ``initialize`` result settles.

    Raises:
        Lost: the result is none, or settles a revision that is not one of the handshake era.
    """
    version = _member(result, "protocolVersion")
    if not isinstance(version, str) or version not in eras.HANDSHAKE_VERSIONS:
        raise Lost("protocol_version")
    return Dialect(Era.HANDSHAKE, version, offers=_offers(result))


def stateless_dialect(client: Client, result: bytes) -> Dialect | None:
    """The stateless dialect that a ``server/discover`` result offers; None means the handshake era.

    Raises:
        Lost: the result is none.
    """
    offered = _member(result, "supportedVersions")
    version = eras.newest_mutual(offered) if isinstance(offered, list) else None
    return None if version is None else replace(client.stateless(version), offers=_offers(result))


def is_no_verdict(refusal: Refused) -> bool:
    """Whether a refused probe says nothing of the era: the door was shut, or the house is on fire."""
    status = refusal.status or 0
    return refusal.code is None and (status in {401, 403, 407, 429} or status >= 500)  # noqa: PLR2004 -- HTTP


def _offers(result: bytes) -> frozenset[str]:
    said = _member(result, "capabilities")
    return frozenset(said) if isinstance(said, dict) else frozenset()


def _member(result: bytes, name: str) -> Any:
    try:
        return msgspec.json.decode(result, type=dict[str, Any]).get(name)
    except (ValueError, RecursionError):
        raise Lost("garbage") from None
