"""The demo's agent: a separate process that has a URL and a token, and nothing of the gateway.

It works the desk of an accounts-payable clerk through MCP (official SDK) and REST, and misbehaves on purpose. One JSON
line a step goes to stdout: {"step", "surface", "tool", "outcome", "said", "call_id"}.
"""

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from typing import Any

import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

URL = os.environ["OSTIARY_URL"]
HEADERS = {"Authorization": f"Bearer {os.environ['OSTIARY_TOKEN']}"}


@dataclass(frozen=True)
class Step:
    """One thing the agent tries.

    Attributes:
        name: what it is, for the story.
        surface: ``mcp`` or ``rest``.
        tool: the tool as named on that surface.
    """

    name: str
    surface: str
    tool: str

    def tell(self, outcome: str, said: Any, call_id: str | None = None) -> None:
        """Report how it ended to whoever started the agent."""
        line = {"step": self.name, "surface": self.surface, "tool": self.tool}
        sys.stdout.write(json.dumps({**line, "outcome": outcome, "said": said, "call_id": call_id}) + "\n")
        sys.stdout.flush()


def read(text: str) -> dict[str, Any]:
    """A refusal's JSON text as the agent's model would read it."""
    document = json.loads(text)
    return document if isinstance(document, dict) else {}


async def by_mcp(client: Client, name: str, tool: str, arguments: dict[str, Any]) -> None:
    """Call a tool as any MCP client would and tell what came back."""
    step = Step(name, "mcp", tool)
    try:
        result = await client.call_tool(tool, arguments)
    except MCPError as error:
        step.tell(f"protocol error {error.error.code}", error.error.message)
        return
    text = next((block.text for block in result.content if block.type == "text"), "{}")
    if result.is_error:
        refusal = read(text)
        step.tell(str(refusal.get("error", "tool_error")), refusal or text, refusal.get("call_id"))
    else:
        step.tell("completed", result.structured_content or text)


async def by_rest(http: httpx2.AsyncClient, name: str, tool: str, body: dict[str, Any] | bytes) -> None:
    """Call a tool over REST; bytes go out as they are."""
    step = Step(name, "rest", tool)
    content = body if isinstance(body, bytes) else json.dumps({"arguments": body}).encode()
    answer = await http.post(
        f"{URL}/v1/tools/{tool}/call", content=content, headers={"Content-Type": "application/json"}
    )
    document = answer.json()
    if answer.is_success:
        step.tell("completed", document["result"].get("structuredContent"), document["call_id"])
    else:
        step.tell(document["type"].rpartition(":")[2], document, document.get("call_id"))


async def allowed(client: Client, http: httpx2.AsyncClient) -> None:
    """The work it is there for."""
    await by_mcp(client, "read an order", "erp__find_order", {"number": "PO-1001"})
    await by_mcp(client, "read the clock", "time__get_current_time", {"timezone": "Europe/Vienna"})
    await by_mcp(client, "look a vendor up", "vendors__lookup", {"id": "V-7"})
    await by_rest(http, "stage an invoice", "erp.stage_invoice", invoice("INV-1", 180_000))
    await by_rest(http, "stage another", "erp.stage_invoice", invoice("INV-2", 220_000))


def invoice(number: str, amount: int) -> dict[str, Any]:
    """Arguments of ``erp.stage_invoice``; the amount is in cents."""
    return {"invoice": number, "order": "PO-1001", "amount": amount, "currency": "EUR"}


async def denied(client: Client, http: httpx2.AsyncClient) -> None:
    """What policy does not let it do."""
    await by_rest(http, "go over 5,000.00 in the run", "erp.stage_invoice", invoice("INV-3", 150_000))
    await by_mcp(client, "a tool it may see, not use so", "vendors__notify", {"id": "V-7", "text": "pay soon"})
    await by_mcp(client, "a tool outside its scope", "erp__purge_orders", {"before": "2030-01-01"})
    await by_mcp(client, "a tool that does not exist", "erp__no_such_tool", {})


async def malformed(client: Client, http: httpx2.AsyncClient) -> None:
    """What no schema admits, and what no parser should."""
    await by_mcp(client, "a wrong type", "erp__find_order", {"number": 1001})
    await by_rest(http, "an unknown argument", "erp.find_order", {"number": "PO-1001", "limit": 10})
    await by_rest(http, "the same key twice", "erp.find_order", b'{"arguments":{"number":"PO-1","number":"PO-2"}}')
    await by_rest(http, "not a number", "erp.stage_invoice", b'{"arguments":{"amount":NaN}}')
    await by_rest(http, "broken JSON", "erp.find_order", b'{"arguments":{')
    await by_mcp(client, "SQL in an argument", "erp__find_order", {"number": "x' OR '1'='1"})


async def limited(client: Client) -> None:
    """One call more than the catalogue allows a minute (the first was made above)."""
    for attempt in range(2, 5):
        await by_mcp(client, f"vendor look-up {attempt}", "vendors__lookup", {"id": "V-7"})


async def forged() -> None:
    """A token with one character changed."""
    token = HEADERS["Authorization"]
    broken = token[:-6] + ("A" if token[-6] != "A" else "B") + token[-5:]
    async with httpx2.AsyncClient(headers={"Authorization": broken}) as http:
        await by_rest(http, "a forged token", "erp.find_order", {"number": "PO-1001"})


async def main() -> None:
    """Connect and go through the day."""
    async with (
        httpx2.AsyncClient(headers=HEADERS) as http,
        Client(streamable_http_client(f"{URL}/mcp", http_client=http)) as client,
    ):
        tools = await client.list_tools()
        Step("list the tools", "mcp", "*").tell("listed", sorted(tool.name for tool in tools.tools))
        await allowed(client, http)
        await denied(client, http)
        await malformed(client, http)
        await limited(client)
    await forged()


if __name__ == "__main__":
    asyncio.run(main())
