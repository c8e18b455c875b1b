"""How a text can be written so that its reader still has it: what upstreams give back, and what the hunt looks for."""

import base64
import html
import json
from collections.abc import Callable
from urllib.parse import quote, quote_plus

# What the redactor promises to find in what an upstream says.
SPELLINGS: dict[str, Callable[[str], str]] = {
    "raw": lambda secret: secret,
    "within": lambda secret: f"postgresql://v-erp:{secret}@db/erp",
    "json": lambda secret: json.dumps({"deep": [{"x": secret}]}),
    "json in json": lambda secret: json.dumps(json.dumps({"x": secret})),
    "unicode escapes": lambda secret: "".join(f"\\u{ord(char):04x}" for char in secret),
    "url": lambda secret: quote(secret, safe=""),
    "form": quote_plus,
    "percent": lambda secret: "".join(f"%{byte:02x}" for byte in secret.encode()),
    "hex": lambda secret: secret.encode().hex(),
    "HEX": lambda secret: secret.encode().hex().upper(),
    "base64": lambda secret: base64.b64encode(secret.encode()).decode(),
    "base64 + 1": lambda secret: base64.b64encode(b"a" + secret.encode()).decode(),
    "base64 + 2": lambda secret: base64.b64encode(b"ab" + secret.encode()).decode(),
    "base64 url": lambda secret: base64.urlsafe_b64encode(b"\xff\xfe" + secret.encode()).decode(),
    "reversed": lambda secret: secret[::-1],
    "split": "\n".join,
    "spaced": "\u200b".join,
}
_HALVED = 16


def betrayals(secret: bytes) -> dict[str, set[bytes]]:
    """What must stand nowhere, by encoding; each by itself gives the secret away, or half of it."""
    found = {
        "raw": {secret},
        "reversed": {secret[::-1]},
        "hex": {secret.hex().encode(), secret.hex().upper().encode()},
        "hex with separators": {secret.hex(sep).encode() for sep in ":-"},
        "base64": _based(secret, base64.b64encode),
        "base64 url": _based(secret, base64.urlsafe_b64encode),
        "base32": {base64.b32encode(secret).rstrip(b"=")[:-1]},
        "percent": _numbered(secret, "%{:02x}", "%{:02X}"),
        "unicode escapes": _numbered(secret, "\\u{:04x}", "\\u{:04X}"),
        "x escapes": _numbered(secret, "\\x{:02x}", "\\x{:02X}"),
        "octal escapes": _numbered(secret, "\\{:03o}"),
        "html entities": _numbered(secret, "&#{};", "&#x{:x};", "&#x{:X};"),
        "decimal bytes": _numbered(secret, "{}, ", "{},"),
    }
    if secret.isascii():
        text = secret.decode()
        found |= {
            "utf-16": {text.encode("utf-16-le"), text.encode("utf-16-be")},
            "utf-32": {text.encode("utf-32-le"), text.encode("utf-32-be")},
            "quoted": {
                json.dumps(text)[1:-1].encode(),
                html.escape(text).encode(),
                quote(text, safe="").encode(),
                quote_plus(text).encode(),
                text.replace("'", "''").encode(),
                repr(text)[1:-1].encode(),
            },
        }
    if len(secret) >= _HALVED:
        # As a value that was cut in two, by a buffer or a chunk, is found.
        middle = len(secret) // 2
        found["halves"] = {secret[:middle], secret[middle:]}
    return found


def _based(secret: bytes, encode: Callable[[bytes], bytes]) -> set[bytes]:
    # At each alignment, without the characters that its neighbours have a part in.
    found = set()
    for shift in range(3):
        text = encode(b"\0" * shift + secret).rstrip(b"=")
        found.add(text[-(-shift * 8 // 6) : (shift + len(secret)) * 8 // 6])
    return found


def _numbered(secret: bytes, *forms: str) -> set[bytes]:
    return {"".join(form.format(byte) for byte in secret).rstrip(", ").encode() for form in forms}
