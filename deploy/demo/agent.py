"""The demo's agent: a separate process that has a URL and a token, and nothing of the gateway.

It works the desk of an accounts-payable clerk through MCP (official SDK) and REST. One JSON line a step goes to stdout:
{"step", "surface", "tool", "outcome", "said", "call_id"}.
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
NORDWIND = "DE02120300000000202051"
_PATIENCE_S = 60
_WAIT = "gateway__wait_approval"
_OK, _ACCEPTED = 200, 202
TOTALS = """
import json, sys
amounts = json.load(sys.stdin)
print(json.dumps({"count": len(amounts), "total": sum(amounts), "largest": max(amounts)}))
"""


@dataclass(frozen=True)
class Step:
    """One thing the agent does.

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


async def by_mcp(client: Client, name: str, tool: str, arguments: dict[str, Any]) -> Any:
    """Call a tool as any MCP client would; what came back, which is told as well."""
    step = Step(name, "mcp", tool)
    try:
        result = await client.call_tool(tool, arguments)
    except MCPError as error:
        step.tell(f"protocol error {error.error.code}", error.error.message)
        return None
    text = next((block.text for block in result.content if block.type == "text"), "{}")
    if result.is_error:
        said = _json(text)
        step.tell(str(said.get("error") or said.get("status") or "tool_error"), said or text, said.get("call_id"))
        return said
    again = bool((result.meta or {}).get("ostiary/replayed"))
    word = "carried out" if tool == _WAIT else "told again" if again else "completed"
    step.tell(word, result.structured_content or text)
    return result.structured_content


async def by_rest(http: httpx2.AsyncClient, name: str, tool: str, arguments: dict[str, Any]) -> Any:
    """Call a tool over REST; the document that came back."""
    step = Step(name, "rest", tool)
    answer = await http.post(f"{URL}/v1/tools/{tool}/call", json={"arguments": arguments})
    document = answer.json()
    if answer.status_code == _OK and document["result"].get("isError"):
        step.tell("tool_error", document["result"]["content"][0]["text"], document["call_id"])
    elif answer.status_code == _OK:
        again = bool(document.get("replayed"))
        said = document["result"].get("structuredContent")
        step.tell("told again" if again else "completed", said, document["call_id"])
    else:
        word = document.get("status") if answer.status_code == _ACCEPTED else document["type"].rpartition(":")[2]
        step.tell(str(word), document, document.get("call_id"))
    return document


async def paid(client: Client, name: str, arguments: dict[str, Any]) -> None:
    """A payment: it waits for people, and so does the agent."""
    said = await by_mcp(client, name, "pay__transfer", arguments)
    if isinstance(said, dict) and said.get("status") == "pending":
        waits = {"approval_id": said["approval_id"], "timeout_s": _PATIENCE_S}
        await by_mcp(client, f"{name}: what came of it", _WAIT, waits)


def transfer(amount: int, reference: str, iban: str = NORDWIND) -> dict[str, Any]:
    """Arguments of ``pay.transfer``; the amount is in cents."""
    return {"iban": iban, "amount": amount, "currency": "EUR", "reference": reference}


def invoice(number: str, amount: int) -> dict[str, Any]:
    """Arguments of ``erp.stage_invoice``; the amount is in cents."""
    return {"invoice": number, "order": "PO-1001", "amount": amount, "currency": "EUR"}


async def work(client: Client, http: httpx2.AsyncClient) -> None:
    """A day at the desk."""
    tools = await client.list_tools()
    Step("list the tools", "mcp", "*").tell("listed", sorted(tool.name for tool in tools.tools))
    await by_mcp(client, "read an order", "erp__find_order", {"number": "PO-1001"})
    await by_mcp(client, "look a vendor up", "vendors__lookup", {"id": "V-7"})
    await by_rest(http, "stage an invoice", "erp.stage_invoice", invoice("INV-1", 180_000))
    await by_rest(http, "stage another", "erp.stage_invoice", invoice("INV-2", 220_000))
    if "code__run" in {tool.name for tool in tools.tools}:
        code = {"code": TOTALS, "data": [180_000, 220_000]}
        await by_mcp(client, "add them up in a sandbox", "code__run", code)
    await by_mcp(client, "a report that blurts its login", "reports__open_orders", {})
    await paid(client, "pay the order", transfer(400_000, "PO-1001"))
    await paid(client, "pay a gift", transfer(90_000, "gift vouchers"))
    await by_rest(http, "go over 5,000.00 in the run", "erp.stage_invoice", invoice("INV-3", 150_000))


def _json(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


async def main() -> None:
    """Connect and go through the day."""
    async with (
        httpx2.AsyncClient(headers=HEADERS, timeout=90) as http,
        Client(streamable_http_client(f"{URL}/mcp", http_client=http)) as client,
    ):
        await work(client, http)


if __name__ == "__main__":
    asyncio.run(main())
