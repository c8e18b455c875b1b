"""``ostiary tool``: what a caller may see, and calls in the caller's own name."""

import json
from typing import Any
from urllib.parse import quote

import click

from gateway.cli import pins
from gateway.cli.reach import Reach, reaching
from gateway.cli.screen import Failed, Misconfigured, answer, columns, shown


@click.group()
def tool() -> None:
    """List, call and approve tools."""


tool.add_command(pins.diff)
tool.add_command(pins.pin)


@tool.command("list")
@reaching
def list_(reach: Reach) -> None:
    """List the tools the token's bearer may see."""
    found = reach.get("/v1/tools")
    rows = [
        (row["name"], row["effect"], row["state"], str(row["definition"].get("description", ""))[:80])
        for row in found["tools"]
    ]
    answer(found, columns(("TOOL", "EFFECT", "STATE", "DESCRIPTION"), rows))


@tool.command("call")
@click.argument("name")
@click.option(
    "--arg", "pairs", multiple=True, metavar="KEY=VALUE", help="One argument; JSON where it can be, else text."
)
@click.option("--arguments", metavar="JSON", help="All arguments as a JSON object, instead of --arg.")
@click.option("--run", "run_id", help="Run the call belongs to; a run's own token names it already.")
@click.option("--confidence", type=click.IntRange(0, 100), help="How sure you are of the call, in per cent.")
@click.option("--evidence", multiple=True, metavar="CALL_ID", help="An earlier call of the run that supports this one.")
@reaching
def call(reach: Reach, name: str, run_id: str | None, **said: Any) -> None:
    """Call the tool NAME (server.tool)."""
    if not reach.token:
        raise Misconfigured("a tool is always called in somebody's name", "give --token or set OSTIARY_TOKEN")
    headers = {} if run_id is None else {"ostiary-run": run_id}
    found = reach.post_raw(f"/v1/tools/{quote(name, safe='')}/call", _body(**said), headers)
    if found.get("status") == "pending":
        approval_id = shown(found.get("approval_id"))
        raise Failed(
            f"waiting for approval {approval_id}: {shown(found.get('message'))}",
            f"`ostiary approve {approval_id}`",
            found,
        )
    result = found.get("result", found)
    if result.get("isError"):
        raise Failed("\n".join(["the tool says that it failed", *_lines(result)]), document=found)
    answer(found, _lines(result))


def _body(pairs: tuple[str, ...], arguments: str | None, confidence: int | None, evidence: tuple[str, ...]) -> bytes:
    members = [f'"arguments": {_arguments(pairs, arguments)}']
    members += [] if confidence is None else [f'"risk": {{"confidence_pct": {confidence}}}']
    members += [f'"evidence": {json.dumps(evidence)}'] if evidence else []
    return f"{{{', '.join(members)}}}".encode("utf-8", "surrogatepass")


def _arguments(pairs: tuple[str, ...], arguments: str | None) -> str:
    if arguments is None:
        return json.dumps(_collected(pairs))
    if pairs:
        raise click.UsageError("give either --arg or --arguments")
    try:
        json.loads(arguments)
    except (ValueError, RecursionError):
        raise Misconfigured("--arguments is no JSON", "quote it for your shell: --arguments '{\"id\": 7}'") from None
    return arguments  # as it was written: duplicate keys and big numbers are the gateway's to judge


def _collected(pairs: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key or key in found:
            raise click.BadParameter(f"{pair!r} is not KEY=VALUE, or gives KEY twice", param_hint="--arg")
        found[key] = _value(value)
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _lines(result: dict[str, Any]) -> list[str]:
    if "structuredContent" in result:
        return json.dumps(result["structuredContent"], indent=2).splitlines()
    texts = [part.get("text", f"[{part.get('type')}]") for part in result.get("content", ())]
    return [shown(line) for text in texts for line in text.split("\n")]
