"""HTTP tools for tests of the HTTP connector, and calls of them that hold the output contract."""

import json
import socket
from collections.abc import Mapping
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from connectors.http import HttpApi, HttpApiOptions
from gateway.core.call import Raw
from gateway.core.errors import GatewayError
from gateway.core.tool import ConnectorKind, EffectClass, Tool, ToolLimits
from gateway.core.verify import Verifier
from tests.evidence import lease, make_tool

LOOPBACK = ("127.0.0.0/8",)
OPEN = HttpApiOptions(allow_networks=LOOPBACK, connect_timeout_s=1.0)


class Names(AbstractResolver):
    """Resolves every name to the given addresses and counts how often it was asked."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The answer of a DNS server a test made up."""
        self.asked.append(host)
        return [
            {"hostname": host, "host": address, "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}
            for address in self.addresses
        ]

    async def close(self) -> None:
        """Nothing to close."""


def tool(binding: Mapping[str, Any] | None = None, effect: EffectClass = EffectClass.READ, **limits: Any) -> Tool:
    """An HTTP tool; without binding it gets ``/orders``."""
    return make_tool(
        "http",
        connector=ConnectorKind.HTTP,
        effect=effect,
        binding=binding or {"method": "GET", "path": "/orders"},
        limits=ToolLimits(**limits),
    )


CREATE = tool({"method": "POST", "path": "/orders", "body": "rest"}, EffectClass.WRITE)


async def call(
    api: HttpApi,
    which: Tool | None = None,
    arguments: Mapping[str, Any] | bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Raw:
    """The result of a call; it must keep the output contract."""
    raw = await api.invoke(lease(which or tool(), arguments, headers))
    assert json.loads(raw.body) == raw.value
    Verifier().verify(raw)
    return raw


async def fault(api: HttpApi, which: Tool | None = None, arguments: Mapping[str, Any] | None = None) -> GatewayError:
    """How a call fails."""
    with pytest.raises(GatewayError) as caught:
        await call(api, which, arguments)
    return caught.value
