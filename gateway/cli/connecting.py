"""``ostiary connect``: a person's own accounts at the services that tools use for them."""

import base64
import hashlib
import hmac
import secrets
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, quote, urlsplit

import click

from gateway.cli.reach import Reach, reaching
from gateway.cli.screen import Failed, answer, columns, shown

_LONGEST_S: Final = 600.0
_LOOK_S: Final = 0.5
_PATH: Final = "/callback/"
_SAID: Final = b"You can close this window and go back to the command.\n"
_AGAIN: Final = "`ostiary connect` it anew"


@click.command()
@click.argument("name", required=False)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Loopback port the browser comes back to.")
@click.option("--end", is_flag=True, help="Revoke and erase the connection instead.")
@reaching
def connect(reach: Reach, name: str | None, port: int, *, end: bool) -> None:
    """Connect your account at a service; without NAME, list yours."""
    if name is None:
        if end:
            raise click.UsageError("name the service whose connection is to end")
        found = reach.get("/v1/connections")
        rows = [(one["name"], one["state"], " ".join(one.get("scopes", ()))) for one in found["connections"]]
        answer(found, columns(("SERVICE", "STATE", "SCOPES"), rows))
        return
    if end:
        _ended(reach, name)
        return
    done = _connected(reach, name, port)
    answer(done, [f"{shown(name)} is connected; `ostiary connect {shown(name)} --end` ends it"])


def _ended(reach: Reach, name: str) -> None:
    found = reach.post(f"/v1/connections/{quote(name, safe='')}/close", {})
    left = "" if found["revoked"] else "; the service did not revoke it: look into your settings there"
    answer(found, [f"nothing of {shown(name)} is kept any more{left}"])


def _connected(reach: Reach, name: str, port: int) -> Any:
    state, verifier = secrets.token_urlsafe(48), secrets.token_urlsafe(64)
    place = f"/v1/connections/{quote(name, safe='')}"
    try:
        server = _Waiting(port, state, f"{_PATH}{quote(name, safe='')}")
    except OSError as error:
        raise Failed(f"port {port} cannot be used ({error.strerror})", "give another one with --port") from None
    with server:
        redirect = f"http://127.0.0.1:{server.server_port}{server.path}"
        asked = {"code_challenge": _challenge(verifier), "state": state, "redirect_uri": redirect}
        page = reach.post(f"{place}/page", asked)
        click.echo(f"Open {shown(page['url'])}", err=True)
        found = server.wait()
    given = {"code": found["code"], "code_verifier": verifier, "redirect_uri": redirect}
    if "iss" in found:
        given["iss"] = found["iss"]
    return reach.post(f"{place}/open", given)


def _challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


class _Waiting(HTTPServer):
    """Waits on loopback for the one browser that was sent away with ``state``.

    ``path`` is the connection's own: a service that sends the browser on to another one has no place there for it.
    """

    timeout = _LOOK_S

    def __init__(self, port: int, state: str, path: str) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.state = state
        self.path = path
        self.found: dict[str, str] | None = None

    def wait(self) -> dict[str, str]:
        """What the browser brought.

        Raises:
            Failed: the person said no, or time ran out.
        """
        deadline = time.monotonic() + _LONGEST_S
        while self.found is None:
            if time.monotonic() > deadline:
                raise Failed("nobody came back in time", _AGAIN)
            self.handle_request()
        if "code" not in self.found:
            raise Failed(f"the service says {shown(self.found.get('error', 'nothing'))}", _AGAIN)
        return self.found


class _Handler(BaseHTTPRequestHandler):
    timeout = 5.0

    def do_GET(self) -> None:
        """Take what was brought, if it is for us."""
        assert isinstance(self.server, _Waiting)
        parts = urlsplit(self.path)
        found = {name: values[0] for name, values in parse_qs(parts.query).items()}
        # Any page can send a browser here: only one that was sent by us knows the state.
        is_ours = parts.path == self.server.path and hmac.compare_digest(
            found.get("state", "").encode(), self.server.state.encode()
        )
        self.send_response(200 if is_ours else 404)
        self.send_header("content-type", "text/plain")
        self.send_header("referrer-policy", "no-referrer")
        self.end_headers()
        if is_ours:
            self.wfile.write(_SAID)
            self.server.found = found

    def log_message(self, *args: object) -> None:
        """Nothing: the line holds the code."""
