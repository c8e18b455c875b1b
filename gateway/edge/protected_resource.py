"""The gateway as an OAuth 2.0 protected resource (RFC 9728): where callers get tokens for it, and which.

Each MCP endpoint is a resource of its own. All paths that could be one are answered alike, so nothing is learned here
of which servers there are.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gateway.core.mcpwire import jsonrpc
from gateway.edge.reply import Header, Reply

METADATA: Final = "/.well-known/oauth-protected-resource"
_RESOURCE: Final = re.compile(r"(|/mcp|/servers/[a-z0-9_-]{1,31}/mcp)", re.ASCII)
_MCP: Final = "/mcp"
_CHALLENGED: Final = frozenset({401, 403})
_NAME: Final = b"www-authenticate"


@dataclass(frozen=True, slots=True)
class ProtectedResource:
    """What is said of the gateway to whoever has no token yet.

    Attributes:
        external_url: where callers reach the gateway; never taken from the Host header.
        issuers: identifiers of the issuers whose tokens are taken.
        scopes: what tokens may give here, as those issuers name it, by its name here.
    """

    external_url: str
    issuers: tuple[str, ...]
    scopes: Mapping[str, tuple[str, ...]]

    def metadata(self, path: str) -> Reply | None:
        """The metadata document at ``path``; None where there is none."""
        resource = path.removeprefix(METADATA)
        if not self.issuers or not path.startswith(METADATA) or _RESOURCE.fullmatch(resource) is None:
            return None
        document = {
            "resource": self.external_url + resource,
            "authorization_servers": list(self.issuers),
            "scopes_supported": sorted({name for names in self.scopes.values() for name in names}),
            "bearer_methods_supported": ["header"],
            "resource_name": "Ostiary",
        }
        return Reply(200, jsonrpc.encode(document))

    def challenged(self, path: str, status: int, headers: list[Header]) -> list[Header]:
        """The header fields of an answer; a challenge among them also says where tokens are to be had, and which."""
        if status not in _CHALLENGED or not self.issuers:
            return headers
        return [(name, value + self._pointer(path) if name == _NAME else value) for name, value in headers]

    def _pointer(self, path: str) -> bytes:
        is_mcp = path.endswith(_MCP) and _RESOURCE.fullmatch(path) is not None
        words = [f'resource_metadata="{self.external_url}{METADATA}{path if is_mcp else ""}"']
        if is_mcp and self.scopes.get("tools"):
            words.append(f'scope="{" ".join(self.scopes["tools"])}"')
        return "".join(f", {word}" for word in words).encode()
