"""The methods of MCP clients, by era, and what is said of them at the start."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from gateway.core.canonical import Arguments, Json
from gateway.core.mcpwire import eras
from gateway.core.mcpwire.eras import Era
from gateway.core.mcpwire.following import LISTEN, SUBSCRIBE, UNSUBSCRIBE
from gateway.core.tool import Kind
from gateway.edge.mcp import asked, completion, flow, following, prompts, resources, tools
from gateway.edge.mcp.tools import Names

Asked = Callable[[Json, str | None, Names], tuple[str, Arguments]]
CALL: Final = "tools/call"
# What goes through the pipeline, and how its name and arguments stand in ``params``.
_CALLS_OF_BOTH: Final[Mapping[str, Asked]] = {
    CALL: partial(asked.named, Kind.TOOL),
    "prompts/get": partial(asked.named, Kind.PROMPT),
    "resources/read": resources.asked,
    "completion/complete": completion.asked,
}
# The stateless era follows resources on the stream that it asks for.
FOLLOWING: Final[Mapping[str, Asked]] = {
    SUBSCRIBE: following.asked,
    UNSUBSCRIBE: partial(following.asked, ends=True),
}
CALLS: Final = {**_CALLS_OF_BOTH, **FOLLOWING}
LISTS: Final = {
    "tools/list": (Kind.TOOL, tools.listed),
    "prompts/list": (Kind.PROMPT, prompts.listed),
    "resources/list": (Kind.RESOURCE, resources.listed),
    "resources/templates/list": (Kind.RESOURCE, resources.listed_templates),
}
# What is listed makes a server be there; what completes something is only there with what it completes.
LISTABLE: Final = frozenset(kind for kind, _ in LISTS.values())
CAPABILITIES: Final[Mapping[str, Mapping[str, bool]]] = {
    **{f"{kind}s": {"listChanged": True} for kind in (Kind.TOOL, Kind.PROMPT)},
    "resources": {"listChanged": True, "subscribe": True},
    "completions": {},
    "logging": {},
}
METHODS: Final = {
    Era.HANDSHAKE: frozenset({"initialize", "ping", flow.SET_LEVEL, *LISTS, *CALLS}),
    Era.STATELESS: frozenset({"server/discover", LISTEN, *LISTS, *_CALLS_OF_BOTH}),
}
_DISCOVER_TTL_MS: Final = 60_000


def discovered(info: Mapping[str, str]) -> dict[str, object]:
    """The result of ``server/discover``; ``info`` is what the gateway says of itself."""
    return {
        **tools.stateless_head(_DISCOVER_TTL_MS),
        "supportedVersions": list(eras.STATELESS_VERSIONS),
        "capabilities": CAPABILITIES,
        "_meta": {eras.META_SERVER: info},
    }
