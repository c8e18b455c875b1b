"""Keys: the bytes a terminal sends, as names. Pure.

A printable character is its own name; the others have longer ones; pasted text comes as one name that begins with
``paste:``, so that no paste can press a key.
"""

from collections.abc import Iterator

PASTE = "paste:"
_PASTE_BEGIN, _PASTE_END = b"\x1b[200~", b"\x1b[201~"
_MOST_PASTED = 64 * 1024
_SEQUENCES = {
    b"\x1b[A": "up",
    b"\x1b[B": "down",
    b"\x1bOA": "up",
    b"\x1bOB": "down",
    b"\x1b[5~": "pgup",
    b"\x1b[6~": "pgdn",
    b"\x1b[H": "home",
    b"\x1b[F": "end",
    b"\x1bOH": "home",
    b"\x1bOF": "end",
    b"\x1b[1~": "home",
    b"\x1b[4~": "end",
}
_CONTROLS = {0x0D: "enter", 0x0A: "enter", 0x7F: "backspace", 0x08: "backspace", 0x15: "clear"}
_ESC = 0x1B


class Decoder:
    """Turns chunks of bytes into keys; keeps what is not complete yet."""

    def __init__(self) -> None:
        self._held = b""

    @property
    def is_open(self) -> bool:
        """Whether a key is not complete yet."""
        return bool(self._held)

    def feed(self, chunk: bytes) -> list[str]:
        """The keys that ``chunk`` completes."""
        self._held += chunk
        return list(self._keys())

    def rest(self) -> list[str]:
        """Nothing more came for a while: an escape that began no sequence was the key itself."""
        if not self._held or self._held.startswith(_PASTE_BEGIN):
            return []
        was_escape, self._held = self._held[0] == _ESC, b""
        return ["esc"] if was_escape else []

    def _keys(self) -> Iterator[str]:
        while self._held:
            size, key = _one(self._held)
            if size == 0:
                return
            self._held = self._held[size:]
            if key:
                yield key


def _one(held: bytes) -> tuple[int, str]:
    """Length of the first key and its name ("" = none of ours); length 0 where it is not complete."""
    if held.startswith(_PASTE_BEGIN):
        return _pasted(held)
    if held[0] == _ESC:
        return _escaped(held)
    if held[0] < 0x20 or held[0] == 0x7F:  # noqa: PLR2004 - the control characters of ASCII
        return 1, _CONTROLS.get(held[0], "")
    return _character(held)


def _character(held: bytes) -> tuple[int, str]:
    size = 4 if held[0] >= 0xF0 else 3 if held[0] >= 0xE0 else 2 if held[0] >= 0xC0 else 1  # noqa: PLR2004 - UTF-8
    if len(held) < size:
        return 0, ""
    try:
        char = held[:size].decode()
    except UnicodeDecodeError:
        return 1, ""  # one byte is dropped, so that what follows it is not swallowed
    return size, char if char.isprintable() else ""


def _pasted(held: bytes) -> tuple[int, str]:
    end = held.find(_PASTE_END)
    if end < 0:
        # A paste without an end would hold every later key back.
        return (len(held), "") if len(held) > _MOST_PASTED else (0, "")
    text = held[len(_PASTE_BEGIN) : end].decode("utf-8", "replace")
    return end + len(_PASTE_END), PASTE + text


def _escaped(held: bytes) -> tuple[int, str]:
    if len(held) == 1:
        return 0, ""
    if held[1:2] not in {b"[", b"O"}:
        return 1, "esc"
    # A sequence ends with its first byte from @ to ~; what is between are its parameters.
    for at in range(2, len(held)):
        if 0x40 <= held[at] <= 0x7E:  # noqa: PLR2004 - ECMA-48, final bytes
            return at + 1, _SEQUENCES.get(held[: at + 1], "")
    return 0, ""
