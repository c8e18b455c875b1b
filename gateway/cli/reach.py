"""How a command reaches the gateway: the admin socket of a state folder, or a URL with a token."""

import functools
import os
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import httpx

from gateway.cli import logins
from gateway.cli.addresses import is_loopback
from gateway.cli.screen import Failed, Misconfigured, json_option, shown

ADMIN_SOCKET = "admin.sock"
# A tool may take ten minutes (catalogue limit); the gateway's own deadline comes first.
_TIMEOUT = httpx.Timeout(660.0, connect=5.0)
_HTTP_ERROR = 400


@dataclass(frozen=True, slots=True)
class Reach:
    """Where the gateway is and with which credential it is asked.

    Attributes:
        state: state folder, whose admin socket is used where there is no ``url``; its file mode is the credential.
        url: base URL.
        token: bearer token; needed with ``url``, and for tool calls always.
    """

    state: Path
    url: str | None = None
    token: str | None = field(default=None, repr=False)

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        """GET ``path``; the decoded JSON answer.

        Raises:
            Failed: no gateway there, or it refused.
        """
        given = {name: value for name, value in (query or {}).items() if value is not None}
        return self._ask("GET", path, query=given)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """POST ``body`` as JSON to ``path``; the decoded JSON answer.

        Raises:
            Failed: no gateway there, or it refused.
        """
        return self._ask("POST", path, body=body)

    def post_raw(self, path: str, body: bytes, headers: Mapping[str, str]) -> Any:
        """POST the JSON text ``body`` as it is, so that the gateway is the one who judges it.

        Raises:
            Failed: no gateway there, or it refused.
        """
        return self._ask("POST", path, content=body, headers=headers)

    @contextmanager
    def line(self, timeout_s: float) -> Iterator["Line"]:
        """For asking again and again: one connection, kept while the bracket is open; no answer takes longer."""
        line = Line(self, timeout_s)
        try:
            yield line
        finally:
            line.hang_up()

    def client(self, timeout: httpx.Timeout) -> httpx.Client:
        """A new connection, to be closed by the caller; nothing is sent yet.

        Raises:
            Failed: nobody opens.
        """
        if self.url is None:
            path = self.state / ADMIN_SOCKET
            _knock(path)
            # Nothing on a socket speaks TLS, and reading all authorities takes longer than most answers.
            transport = httpx.HTTPTransport(uds=os.fspath(path), verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
            return httpx.Client(transport=transport, base_url="http://localhost", timeout=timeout, trust_env=False)
        guard(self.url, self.token)
        return httpx.Client(base_url=self.url, timeout=timeout, follow_redirects=False)

    def send(self, client: httpx.Client, method: str, path: str, **request: Any) -> httpx.Response:
        """Send one request with the credential; the answer as it came.

        Raises:
            Unreached: none came.
        """
        headers = {"content-type": "application/json", **request.get("headers", {})}
        if self.token:
            headers["authorization"] = f"Bearer {self.token}"
        try:
            return client.request(
                method,
                path,
                params=request.get("query"),
                json=request.get("body"),
                content=request.get("content"),
                headers=headers,
            )
        except (httpx.ConnectError, httpx.ConnectTimeout):
            raise _absent(self.url or str(self.state / ADMIN_SOCKET)) from None
        except httpx.HTTPError as error:
            raise Unreached(
                f"the gateway broke off ({type(error).__name__})", "look at the gateway's own output"
            ) from None

    def _ask(self, method: str, path: str, **request: Any) -> Any:
        with self.client(_TIMEOUT) as client:
            return _decoded(self.send(client, method, path, **request))


class Unreached(Failed):
    """No gateway answered. Asking again later may help."""


class Line:
    """A gateway asked again and again over one connection, which is opened anew after it broke."""

    def __init__(self, reach: Reach, timeout_s: float) -> None:
        self._reach = reach
        self._timeout = httpx.Timeout(timeout_s)
        self._client: httpx.Client | None = None
        self._stream: Any = None

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        """GET ``path``; the decoded JSON answer.

        Raises:
            Unreached: no gateway there.
            Failed: it refused.
        """
        given = {name: value for name, value in (query or {}).items() if value is not None}
        return _decoded(self._sent(path, query=given))

    def text(self, path: str) -> str:
        """GET ``path``; the answer as plain text.

        Raises:
            Unreached: no gateway there.
            Failed: it refused.
        """
        response = self._sent(path)
        if response.status_code >= _HTTP_ERROR:
            _decoded(response)
        return response.text

    def content(self, path: str, query: Mapping[str, Any] | None = None) -> bytes:
        """GET ``path``; the answer byte for byte, for documents whose digest is known.

        Raises:
            Unreached: no gateway there.
            Failed: it refused.
        """
        given = {name: value for name, value in (query or {}).items() if value is not None}
        response = self._sent(path, query=given)
        if response.status_code >= _HTTP_ERROR:
            _decoded(response)
        return response.content

    def hang_up(self) -> None:
        """Close the connection; the next question opens one."""
        if self._client is not None:
            self._client.close()
        self._client = self._stream = None

    def _sent(self, path: str, **request: Any) -> httpx.Response:
        # Whether the other end has closed is looked at here: the client would open a new connection by itself, and
        # leave its socket open where nobody is there any more.
        if self._stream is None or self._stream.get_extra_info("is_readable"):
            self.hang_up()
        if self._client is None:
            self._client = self._reach.client(self._timeout)
        try:
            response = self._reach.send(self._client, "GET", path, **request)
        except Unreached:
            self.hang_up()
            raise
        self._stream = response.extensions.get("network_stream")
        return response


def reaching(command: Callable[..., None]) -> Callable[..., None]:
    """Add ``--state``, ``--url``, ``--token`` and ``--json``, and pass a ``Reach`` as first argument."""

    @json_option
    @click.option("--token", envvar="OSTIARY_TOKEN", show_envvar=True, help="Bearer token (better by environment).")
    @click.option("--url", envvar="OSTIARY_URL", show_envvar=True, help="Base URL, instead of the admin socket.")
    @state_option
    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        state, url, token = (kwargs.pop(name) for name in ("state", "url", "token"))
        command(Reach(state, url, token or (url and logins.token_for(url))), *args, **kwargs)

    return run


def state_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add ``--state``."""
    return click.option(
        "--state",
        envvar="OSTIARY_STATE",
        show_envvar=True,
        default=".ostiary",
        show_default=True,
        type=click.Path(path_type=Path),
        help="State folder of the gateway.",
    )(command)


def _knock(path: Path) -> None:
    # Tried here, where it can be told apart why nobody opens; the HTTP client would also leave its socket open.
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except PermissionError:
            raise Failed(f"{path} is another user's", "run as the gateway's user, or use --url with a token") from None
        except OSError:
            raise _absent(str(path)) from None


def _absent(place: str) -> Unreached:
    return Unreached(
        f"no gateway answers at {shown(place)}",
        "start one with `ostiary up` or `ostiary serve`, or name it with --state or --url",
    )


def guard(url: str, token: str | None) -> None:
    """Refuse what is no address a token may be sent to.

    Raises:
        Misconfigured: no http or https URL, no token, or http beyond this machine.
    """
    try:
        parts, is_url = urlsplit(url), bool(httpx.URL(url).host)
    except (ValueError, httpx.InvalidURL):
        parts, is_url = urlsplit(""), False
    if not is_url or parts.scheme not in {"http", "https"} or not parts.hostname:
        raise Misconfigured(f"{shown(url)} is no http or https URL", "give --url as in http://127.0.0.1:8470")
    if token is None:
        raise Misconfigured("with --url a token is needed", "`ostiary login`, or set OSTIARY_TOKEN")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        # Whoever listens on the way would be the bearer from then on.
        raise Misconfigured("a token is not sent over http beyond this machine", "use an https URL")


def _decoded(response: httpx.Response) -> Any:
    try:
        document = response.json()
    except ValueError:
        raise Unreached(
            f"what answers there is no gateway (status {response.status_code}, no JSON)", "correct --state or --url"
        ) from None
    if response.status_code >= _HTTP_ERROR:
        raise refusal(document, response.status_code)
    return document


def refusal(problem: Any, status: int) -> Failed:
    """A problem+json document as a failure: title, detail, each reason with the fact it names, the call to explain."""
    if not isinstance(problem, dict):
        return Failed(f"the gateway refused with status {status}", document=problem)
    lines = [f"{shown(problem.get('title', 'refused'))}: {shown(problem.get('detail', ''))}"]
    for reason in problem.get("reasons") or ():
        lines.append(f"  {shown(reason.get('id', '?'))}: {shown(reason.get('msg', ''))}")
        if reason.get("fact"):
            lines.append(f"    look at: {shown(reason['fact'])}")
    if problem.get("retry_after") is not None:
        lines.append(f"  try again in {shown(problem['retry_after'])} s")
    call_id = problem.get("call_id")
    fix = f"`ostiary explain {shown(call_id)}` tells more" if call_id and problem.get("reasons") else _FIXES.get(status)
    return Failed("\n".join(lines), fix, problem)


_FIXES = {
    401: "get a token with `ostiary token issue` and give it as --token or OSTIARY_TOKEN",
    503: "`ostiary check --config FILE` or /readyz says which part is down",
}
