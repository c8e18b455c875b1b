"""The methods of MCP clients, by era, and what is said of them at the start."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from gateway.core.canonical import Arguments, Json
from gateway.core.mcpwire.eras import Era
from gateway.core.mcpwire.following import LISTEN, SUBSCRIBE, UNSUBSCRIBE
from gateway.core.tool import Kind
from gateway.edge import mcp_asked, mcp_completion, mcp_flow, mcp_following, mcp_prompts, mcp_resources, mcp_tools
from gateway.edge.mcp_tools import Names

Asked = Callable[[Json, str | None, Names], tuple[str, Arguments]]
CALL: Final = "tools/call"
# What goes through the pipeline, and how its name and arguments stand in ``params``.
_CALLS_OF_BOTH: Final[Mapping[str, Asked]] = {
    CALL: partial(mcp_asked.named, Kind.TOOL),
    "prompts/get": partial(mcp_asked.named, Kind.PROMPT),
    "resources/read": mcp_resources.asked,
    "completion/complete": mcp_completion.asked,
}
# The stateless era follows resources on the stream that it asks for.
FOLLOWING: Final[Mapping[str, Asked]] = {
    SUBSCRIBE: mcp_following.asked,
    UNSUBSCRIBE: partial(mcp_following.asked, ends=True),
}
CALLS: Final = {**_CALLS_OF_BOTH, **FOLLOWING}
LISTS: Final = {
    "tools/list": (Kind.TOOL, mcp_tools.listed),
    "prompts/list": (Kind.PROMPT, mcp_prompts.listed),
    "resources/list": (Kind.RESOURCE, mcp_resources.listed),
    "resources/templates/list": (Kind.RESOURCE, mcp_resources.listed_templates),
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
    Era.HANDSHAKE: frozenset({"initialize", "ping", mcp_flow.SET_LEVEL, *LISTS, *CALLS}),
    Era.STATELESS: frozenset({"server/discover", LISTEN, *LISTS, *_CALLS_OF_BOTH}),
}
