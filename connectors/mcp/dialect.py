"""What is said to an upstream in each era, as bytes: arguments are copied in verbatim, as they were decided on."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from connectors.mcp.faults import Lost, Refused
from gateway.core.mcpwire import eras
from gateway.core.mcpwire.eras import Era
from gateway.core.mcpwire.jsonrpc import encode
from gateway.core.tool import Kind, Tool, kind_of

# No capability is declared, so an upstream may ask nothing of us: no sampling, no elicitation, no roots.
_CAPABILITIES: Final[dict[str, Any]] = {}
_VERSION_HEADER_SINCE: Final = "2025-06-18"
_METHODS: Final[Mapping[Kind, str]] = {
    Kind.TOOL: "tools/call",
    Kind.PROMPT: "prompts/get",
    Kind.RESOURCE: "resources/read",
    Kind.COMPLETION: "completion/complete",
}


@dataclass(frozen=True, slots=True)
class Dialect:
    """How to speak to one upstream.

    Attributes:
        era: which era.
        version: the revision agreed on.
        meta: the ``_meta`` member of each request, with its leading comma; empty in the handshake era.
        offers: what besides tools the upstream says that it has (``prompts``, ``resources`` ...).
    """

    era: Era
    version: str
    meta: bytes = b""
    offers: frozenset[str] = frozenset()

    def params(self, members: bytes) -> bytes:
        """The ``params`` object of a request; ``members`` is the inside of a JSON object, without its braces."""
        meta = self.meta if members else self.meta.removeprefix(b",")
        return b"{%b%b}" % (members, meta)

    @property
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
            eras.META_CAPABILITIES: _CAPABILITIES,
            eras.META_CLIENT: {"name": self.name, "version": self.version},
        }
        return Dialect(Era.STATELESS, version, b',"_meta":' + encode(meta))

    def handshake_params(self) -> bytes:
        """The ``params`` of ``initialize``."""
        return encode(
            {
                "protocolVersion": eras.LATEST_HANDSHAKE,
                "capabilities": _CAPABILITIES,
                "clientInfo": {"name": self.name, "version": self.version},
            }
        )


def call_method(tool: Tool) -> str:
    """The method that carries a call of ``tool`` out."""
    return _METHODS[tool.kind]


def call_members(tool: Tool, arguments: bytes) -> bytes:
    """The inside of the ``params`` of ``call_method``; ``arguments`` is canonical JSON text.

    Of a read the address is its argument, and so the one that was decided on.
    """
    if tool.kind is Kind.RESOURCE:
        return arguments[1:-1]
    if tool.kind is Kind.COMPLETION:
        return b'"ref":%b,%b' % (encode(_reference(tool.own_name)), arguments[1:-1])
    return b'"name":%b,"arguments":%b' % (encode(tool.own_name), arguments)


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
