"""A witness that does as it is told: honest but careless, or lying in one of many ways. It shares no code with us."""

import base64
import gzip
import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

NAME = "liar.example/w"
_SECRET = Ed25519PrivateKey.from_private_bytes(b"l" * 32)
_OTHER = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
_FIELDS = {"elsewhere": ("location", "/elsewhere"), "packed": ("content-encoding", "gzip")}


def _key_id(private: Ed25519PrivateKey) -> bytes:
    raw = private.public_key().public_bytes_raw()
    return hashlib.sha256(NAME.encode() + b"\n\x04" + raw).digest()[:4]


def vkey() -> str:
    """Its public key."""
    raw = base64.b64encode(b"\x04" + _SECRET.public_key().public_bytes_raw()).decode()
    return f"{NAME}+{_key_id(_SECRET).hex()}+{raw}"


def line(text: str, now_s: int, private: Ed25519PrivateKey = _SECRET) -> str:
    """A cosignature of a checkpoint."""
    signature = private.sign(f"cosignature/v1\ntime {now_s}\n{text}".encode())
    return f"\u2014 {NAME} {base64.b64encode(_key_id(private) + now_s.to_bytes(8) + signature).decode()}\n"


@dataclass(slots=True)
class Liar:
    """A running one.

    Attributes:
        manner: what it does.
        asked: the bodies it was sent.
        leave: set to let slow answers end.
    """

    url: str = ""
    manner: str = "honest"
    asked: list[str] = field(default_factory=list)
    leave: threading.Event = field(default_factory=threading.Event)

    def answer(self, body: str) -> tuple[int, str, bytes]:
        """Status, content type and body for a request."""
        text = body.partition("\n\n")[2].rpartition("\n\n")[0] + "\n"
        now = int(time.time())
        size = text.split("\n")[1]
        plain, sized = "text/plain", "text/x.tlog.size"
        answers = {
            "honest": (200, plain, line(text, now)),
            "beside": (200, plain, line(text, now, _OTHER) + line(text, now)),
            "wrong key": (200, plain, line(text, now, _OTHER)),
            "other size": (200, plain, line(text.replace(f"\n{size}\n", f"\n{size}0\n", 1), now)),
            "forged": (
                200,
                plain,
                line(text, now).replace("==", "=A") if "==" in line(text, now) else line("x\n", now),
            ),
            "future": (200, plain, line(text, now + 40 * 86_400)),
            "garbage": (200, plain, "\u2014 no signature\n"),
            "nothing": (200, plain, ""),
            "longer": (200, plain, "\n" + line(f"{text}\n", now)),
            "extended": (200, plain, "more\n\n" + line(f"{text}\nmore\n", now)),
            "drips": (200, plain, line(text, now)),
            "packed": (200, plain, gzip.compress(line(text, now).encode()).decode("utf-8", "surrogateescape")),
            "newlines": (200, plain, "\n\n" + line(text, now)),
            "flood": (200, plain, line(text, now) * 2_000),
            "bytes": (200, plain, "\udcff"),
            "error": (500, plain, "broken"),
            "busy": (503, plain, ""),
            "unknown log": (404, plain, ""),
            "unknown key": (403, plain, ""),
            "elsewhere": (302, plain, ""),
            "ahead": (409, sized, "999999999\n"),
            "conflict": (409, plain, "another root"),
            "same size": (409, sized, f"{body.split()[1]}\n"),
            "odd size": (409, sized, "-1\n"),
            "no size": (409, sized, "12"),
            "undecided": (409, sized, f"{1 + len(self.asked) % 2}\n"),
            "inconsistent": (422, plain, ""),
        }
        status, media, words = answers[self.manner]
        return status, media, words.encode("utf-8", "surrogateescape")


def _drip(file: BufferedIOBase, words: bytes, leave: threading.Event) -> None:
    with suppress(OSError):
        for byte in words:
            file.write(bytes([byte]))
            leave.wait(0.05)


@contextmanager
def lying() -> Iterator[Liar]:
    """Serve one on loopback."""
    liar = Liar()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            liar.asked.append(body)
            if liar.manner == "slow":
                liar.leave.wait(30)
            if liar.manner in {"slow", "hangs up"}:
                self.close_connection = True
                return
            status, media, words = liar.answer(body)
            self.send_response(status)
            self.send_header("content-type", media)
            self.send_header("content-length", str(len(words)))
            if liar.manner in _FIELDS:
                self.send_header(*_FIELDS[liar.manner])
            self.end_headers()
            if liar.manner == "drips":
                _drip(self.wfile, words, liar.leave)
            else:
                self.wfile.write(words)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    liar.url = f"http://127.0.0.1:{server.server_address[1]}/w"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield liar
    finally:
        liar.leave.set()
        server.shutdown()
        server.server_close()
        thread.join()
