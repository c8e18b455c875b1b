"""The question that a hook asks the gateway. Whatever is no clear yes is a no: no gateway, no time, no sense."""

import json
import time
from typing import Any, Final

import httpx

from gateway.cli.client.door import Door
from gateway.cli.hook.dialects import Ruling, Wish
from gateway.cli.screen import Failed
from gateway.core.canonical import encode

PATH: Final = "/v1/hooks/pre-tool"
_WORDS: Final = frozenset({"allow", "ask", "deny"})
_MOST_BYTES: Final = 256 * 1024
_REFUSED: Final = 401
_GOOD: Final = 200


class NoAnswer(Exception):
    """The gateway did not say; the message says why."""


def ruling(door: Door, server: str, wish: Wish, within_s: float) -> Ruling:
    """What policy says of ``wish``, or a denial that says why it could not be asked.

    Args:
        door: the gateway.
        server: the upstream that stands for the agent.
        wish: what it is about to do.
        within_s: longest all of it may take.
    """
    try:
        return _told(_asked(door, server, wish, time.monotonic() + within_s))
    except NoAnswer as why:
        return Ruling("deny", f"Ostiary could not be asked, so this is not done: {why}")
    except Failed as why:
        fix = f" ({why.fix})" if why.fix else ""
        return Ruling("deny", f"Ostiary could not be asked, so this is not done: {why.format_message()}{fix}")


def _asked(door: Door, server: str, wish: Wish, until: float) -> Any:
    members = {"server": server, "tool": wish.tool, "arguments": wish.arguments.exact, "session": wish.session}
    body = encode({key: value for key, value in members.items() if value is not None})
    try:
        status, answer = _posted(door, body, until, refused=False)
        if status == _REFUSED:  # the token may have been made under a key that is replaced by now
            status, answer = _posted(door, body, until, refused=True)
    except httpx.HTTPError as error:
        raise NoAnswer(f"no gateway answers at {door.shown} ({type(error).__name__})") from None
    try:
        document = json.loads(answer)
    except (ValueError, RecursionError):
        raise NoAnswer(f"what answers at {door.shown} is no gateway") from None
    if status != _GOOD:
        detail = document.get("detail") if isinstance(document, dict) else None
        raise NoAnswer(f"it refused with status {status}: {detail}")
    return document


def _posted(door: Door, body: bytes, until: float, *, refused: bool) -> tuple[int, bytes]:
    headers = {"content-type": "application/json", "authorization": f"Bearer {door.token(refused)}"}
    with (
        door.plain_client(max(until - time.monotonic(), 0.1)) as client,
        client.stream("POST", door.path, content=body, headers=headers) as response,
    ):
        read = bytearray()
        for chunk in response.iter_bytes():
            read += chunk
            if len(read) > _MOST_BYTES or time.monotonic() > until:
                raise NoAnswer("its answer is too long, or takes too long")
        return response.status_code, bytes(read)


def _told(document: Any) -> Ruling:
    if not isinstance(document, dict):
        raise NoAnswer("its answer is none")
    word, message, call_id = (document.get(name) for name in ("decision", "message", "call_id"))
    if word not in _WORDS or not isinstance(message, str) or not isinstance(call_id, str):
        raise NoAnswer("its answer is none")
    if word == "allow":
        return Ruling(word, message)
    return Ruling(word, f"Ostiary: {message}. `ostiary explain {call_id}` tells more.")
