"""An MCP server that wants tokens, and who gives them, at one address on loopback; both as a test wants them."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

RESOURCE = "/.well-known/oauth-protected-resource/mcp"
METADATA = "/.well-known/oauth-authorization-server"
NEAR = ("127.0.0.0/8",)


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Granting:
    """What it says; members replace the good ones.

    Attributes:
        challenge: value of WWW-Authenticate at the server; None = none.
        server: of the server's metadata, published at ``place``.
        service: of the authorization server's.
        client: of the answer to a registration.
        said: whole answers by path: status, header fields, body.
        asked: all requests.
    """

    url: str = ""
    challenge: str | None = None
    place: str = RESOURCE
    server: dict[str, Any] = field(default_factory=dict)
    service: dict[str, Any] = field(default_factory=dict)
    client: dict[str, Any] = field(default_factory=dict)
    said: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    @property
    def mcp(self) -> str:
        """The server's address."""
        return f"{self.url}/mcp"

    def paths(self) -> list[str]:
        """What was asked for, in order."""
        return [one.path for one in self.asked]

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, header fields and body."""
        if path in self.said:
            return self.said[path]
        if path == "/mcp":
            return 401, {} if self.challenge is None else {"WWW-Authenticate": self.challenge}, b""
        good: dict[str, tuple[int, dict[str, Any]]] = {
            self.place: (200, {"resource": self.mcp, "authorization_servers": [self.url]} | self.server),
            METADATA: (
                200,
                {
                    "issuer": self.url,
                    "authorization_endpoint": f"{self.url}/authorize",
                    "token_endpoint": f"{self.url}/token",
                    "revocation_endpoint": f"{self.url}/revoke",
                    "registration_endpoint": f"{self.url}/register",
                    "code_challenge_methods_supported": ["S256"],
                }
                | self.service,
            ),
            "/register": (201, {"client_id": "made", "client_secret": "made-for-the-gateway"} | self.client),
        }
        status, said = good.get(path, (404, {}))
        kept = {name: value for name, value in said.items() if value is not None}
        return status, {"Content-Type": "application/json"}, json.dumps(kept).encode()


@contextmanager
def granting() -> Iterator[Granting]:
    """One that is running; all must be over at the end."""
    there = Granting()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Answer, and remember."""
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            fields = {name.lower(): value for name, value in self.headers.items()}
            there.asked.append(Asked(self.command, self.path, fields, body))
            status, headers, content = there.answer(self.path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_POST(self) -> None:
            """The same."""
            self.do_GET()

        def log_message(self, *args: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        there.url = f"http://127.0.0.1:{server.server_port}"
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        try:
            yield there
        finally:
            server.shutdown()
            serving.join()
