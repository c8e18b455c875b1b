"""Pages to scroll: an explained call, and an action before it is signed. Nothing is cut."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from gateway.cli.explain import told
from gateway.cli.watch.approvals import PendingView
from gateway.core.lookalikes import guarded

_INDENT = "  "


class _Lexeme(str):
    """A number as it was written: no float stands between what is shown and what is signed."""

    __slots__ = ()


def explained(found: Mapping[str, Any], call: Mapping[str, Any]) -> list[str]:
    """The answer of ``/v1/calls/ID/explain`` and of ``/v1/calls/ID`` as lines."""
    lines = [guarded(line) for line in told(dict(found))]
    events = call.get("events")
    if isinstance(events, list) and events:
        lines += ["", "events"]
        lines += [f"{_INDENT}{moment(event.get('at_us'))}  {guarded(str(event.get('type')))}" for event in events]
    payloads = call.get("payloads")
    for role, payload in payloads.items() if isinstance(payloads, Mapping) else ():
        if role != "reasons":  # told above in words
            lines += ["", guarded(str(role)), *(_INDENT + line for line in _pretty(payload, ""))]
    return lines


def to_sign(view: PendingView) -> list[str]:
    """Everything an approver signs."""
    lines = [
        f"approval   {guarded(view.id)}",
        f"tool       {guarded(view.tool)}",
        f"agent      {guarded(view.agent)}",
        f"for        {guarded(view.requester)}",
        f"asked      {moment(view.requested_us)}",
        f"expires    {moment(view.expires_us)}",
        f"needs      {view.needed} more signature{'s' if view.needed != 1 else ''}",
    ]
    lines += [f"{guarded(name).ljust(10)} {guarded(value)}" for name, value in view.facts]
    if view.action is not None:
        lines += [f"digest     {guarded(view.action)}"]
    for rule, message in view.reasons:
        lines += [f"because    {guarded(rule)}: {guarded(message)}"]
    return [*lines, "", "arguments, complete", *(_INDENT + line for line in _arguments(view.arguments or ""))]


def moment(at_us: Any) -> str:
    """A time in UTC, to the millisecond."""
    if not isinstance(at_us, int):
        return "?"
    return datetime.fromtimestamp(at_us / 1_000_000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _arguments(text: str) -> Iterator[str]:
    try:
        value = json.loads(text, parse_float=_Lexeme, parse_int=_Lexeme)
    except (ValueError, RecursionError):
        yield guarded(text)  # as it is: nothing may be left out because it is odd
        return
    yield from _pretty(value, "")


def _pretty(value: Any, after: str) -> Iterator[str]:
    """JSON, indented; ``after`` follows the last line."""
    if isinstance(value, dict) and value:
        yield from _block("{}", [(f"{_quoted(key)}: ", item) for key, item in value.items()], after)
    elif isinstance(value, list) and value:
        yield from _block("[]", [("", item) for item in value], after)
    else:
        yield (guarded(value) if isinstance(value, _Lexeme) else _quoted(value)) + after


def _block(brackets: str, items: Sequence[tuple[str, Any]], after: str) -> Iterator[str]:
    yield brackets[0]
    for at, (label, item) in enumerate(items):
        first, *rest = _pretty(item, "," if at < len(items) - 1 else "")
        yield f"{_INDENT}{label}{first}"
        yield from (_INDENT + line for line in rest)
    yield brackets[1] + after


def _quoted(value: Any) -> str:
    # A backslash of the text itself is doubled by JSON, so an escape of ours cannot be counterfeited.
    return guarded(json.dumps(value, ensure_ascii=False))
