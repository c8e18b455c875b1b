"""``ostiary policy why-not``: what would have to be true for somebody to be allowed a tool."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click
from rich.console import RenderableType
from rich.text import Text

from gateway.cli.policies import tables
from gateway.cli.policies.picking import Revisions
from gateway.cli.reach import Reach, reaching
from gateway.cli.screen import Failed, answer, shown, wants_json
from gateway.core.replaying import Seen

_BARE = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_ABSENT = object()
_GRANT = re.compile(r"data\.gateway\.scope\.(agents|groups|users)\.(.+)\.allow")
_WORDS = {
    Seen.HIDDEN: "hidden: for this caller the tool does not exist",
    Seen.DENY: "denied: the caller sees the tool, and this call is refused",
    Seen.NEEDS_APPROVAL: "needs approval: the call would wait for people",
    Seen.ALLOW: "allowed",
    Seen.LISTED: "the caller sees the tool; these arguments are refused before policy is asked",
}


@click.command("why-not")
@click.argument("tool", metavar="TOOL")
@click.option("--agent", help="The agent; without, a person calls with their own token.")
@click.option(
    "--user", default="somebody", show_default=True, help="The person who calls, or whom the agent works for."
)
@click.option("--group", "groups", multiple=True, metavar="NAME", help="Group of the person; again for more.")
@click.option("--args", "arguments", metavar="JSON", help="Arguments of the call; without, rules see none.")
@reaching
def why_not(reach: Reach, tool: str, groups: tuple[str, ...], arguments: str | None, **who: str | None) -> None:
    """Say what would have to be true for a caller to be allowed TOOL.

    A hypothetical answer, at this time: for a caller in a new run, whose token would be as given here.
    """
    question: dict[str, Any] = {"tool": tool, "groups": list(groups)}
    question |= {name: value for name, value in who.items() if value}
    if arguments is not None:
        question["arguments"] = _object(arguments)
    said = reach.post("/v1/policy/questions", question)
    seen, word = _seen(said)
    data = _data(reach, said["revision"]) if any(reason.get("fact") for reason in word["reasons"]) else None
    facts = [_looked_up(data, reason) for reason in word["reasons"] if reason.get("fact")]
    grants = [] if seen is Seen.ALLOW else list(_grants(data, tool, word["reasons"]))
    if wants_json():
        answer({**said, "seen": seen, "facts": facts, "grants": grants}, ())
        return
    tables.tell(_told(said, seen, word, (facts, grants)))


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"no JSON: {error}", param_hint="--args") from None
    if not isinstance(found, dict):
        raise click.BadParameter("must be a JSON object", param_hint="--args")
    return found


def _seen(said: Mapping[str, Any]) -> tuple[Seen, Mapping[str, Any]]:
    listing, calling = said["listing"], said.get("calling")
    if listing["effect"] != "allow":
        return Seen.HIDDEN, listing
    return (Seen.LISTED, listing) if calling is None else (Seen(calling["effect"]), calling)


def _data(reach: Reach, revision: str) -> Mapping[str, Any] | None:
    try:
        bundle = Revisions(reach, None).bundle(revision)
    except Failed:  # an administrator may ask policy without being let see it
        return None
    found: Mapping[str, Any] | None = None if bundle is None else json.loads(bundle.data)
    return found


def _looked_up(data: Mapping[str, Any] | None, reason: Mapping[str, Any]) -> dict[str, Any]:
    path = str(reason["fact"])
    said = {"id": reason["id"], "fact": path}
    if data is None or not path.startswith("data."):
        return said
    found = value_at({"data": data}, path.split("."))
    return said | ({"there": False} if found is _ABSENT else {"there": True, "value": found})


def value_at(value: Any, steps: Sequence[str]) -> Any:
    """What stands at a dotted path, whose keys may hold dots themselves: the first reading there is, or ``_ABSENT``."""
    if not steps:
        return value
    if isinstance(value, Mapping):
        for count in range(len(steps), 0, -1):
            key = ".".join(steps[:count])
            if key in value:
                found = value_at(value[key], steps[count:])
                if found is not _ABSENT:
                    return found
    return _ABSENT


def is_absent(value: Any) -> bool:
    """Whether ``value_at`` found nothing."""
    return value is _ABSENT


def _grants(data: Mapping[str, Any] | None, tool: str, reasons: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    facts = dict.fromkeys(str(reason.get("fact")) for reason in reasons)
    for found in filter(None, map(_GRANT.fullmatch, facts)):
        kind, name = found[1], found[2]
        head = f"[policy.data.gateway.scope.{kind}.{_key(name)}]"
        if data is None:
            yield f"{head}\n# add to its allow: {json.dumps(tool, ensure_ascii=False)}"
            continue
        lists = data.get("gateway", {}).get("scope", {}).get(kind, {}).get(name, {})
        yield f"{head}\nallow = {json.dumps([*lists.get('allow', ()), tool], ensure_ascii=False)}"


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else json.dumps(name, ensure_ascii=False)


def _told(
    said: Mapping[str, Any], seen: Seen, word: Mapping[str, Any], found: tuple[list[dict[str, Any]], list[str]]
) -> Iterator[RenderableType]:
    facts, grants = {fact["fact"]: fact for fact in found[0]}, found[1]
    style = {Seen.ALLOW: "bold green", Seen.NEEDS_APPROVAL: "bold yellow"}.get(seen, "bold red")
    yield Text(f"{shown(said['tool'])} ({said['tool_effect']})  {_WORDS[seen]}", style)
    if not word["enforced"]:
        yield Text("observe mode lets it pass all the same", "yellow")
    for fault in said.get("faults", ()):
        yield Text(f"  {shown(fault)}", "red")
    for reason in word["reasons"]:
        yield Text(f"  {shown(reason['id'])}: {shown(reason['msg'])}")
        if reason.get("fact"):
            yield Text(f"    {_state(facts[reason['fact']])}", "dim")
    if seen is Seen.NEEDS_APPROVAL:
        yield from (Text(f"  by whom: {_people(need)}", "yellow") for need in word["requirements"])
    if grants:
        yield Text("these lines in gateway.toml would grant it, as far as scope goes:", "bold")
        yield from (Text(f"  {shown(line)}") for lines in grants for line in lines.splitlines())
    yield Text("hypothetical, at this time: a new run, nothing spent, no approval given", "dim")


def _people(need: Mapping[str, Any]) -> str:
    count = "1 person" if need["quorum"] == 1 else f"{need['quorum']} persons"
    roles = f" of {', '.join(need['roles'])}" if need["roles"] else ""
    others = f", not {', '.join(need['exclude'])}" if need["exclude"] else ""
    return shown(count + roles + others)


def _state(fact: Mapping[str, Any]) -> str:
    path = shown(fact["fact"])
    if "there" not in fact:
        what = "its value needs the scope audit" if path.startswith("data.") else "of the call itself"
        return f"look at: {path} ({what})"
    return f"{path} is now {shown(fact['value'])}" if fact["there"] else f"{path} is not set"
