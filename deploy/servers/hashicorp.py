"""HashiCorp Vault in OpenBao's place, for showing that what works with the one works with the other.

It has no declaration of its first start: it is initialised and unsealed over its socket, told all that OpenBao is told
by declaration, and the root token with which that was done is revoked before anybody else gets to see the server.
Its server is on no package index; ``make campaign NAME=hashicorp`` builds it where Go is installed.
"""

import json
import os
from collections.abc import Callable, Mapping
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final

from deploy.servers.process import ServerError

VARIABLE: Final = "OSTIARY_TEST_HASHICORP"
_STANZAS: Final = frozenset({"seal", "audit", "initialize"})
_REFUSED: Final = 400
_PATIENCE_S: Final = 60.0
_FIX: Final = "`make campaign NAME=hashicorp` builds it"
Connect = Callable[[], HTTPConnection]


def binary() -> Path | None:
    """The server that is to take OpenBao's place; None = none is.

    Raises:
        ServerError: it is no program.
    """
    given = os.environ.get(VARIABLE)
    if not given:
        return None
    if not os.access(given, os.X_OK):
        raise ServerError(f"{VARIABLE} names no program", _FIX)
    return Path(given)


def settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an OpenBao, as far as this server knows them."""
    return {name: value for name, value in given.items() if name not in _STANZAS} | {"disable_mlock": True}


def first_start(connect: Connect, audit: Mapping[str, Any], requests: Mapping[str, Mapping[str, Any]]) -> None:
    """Initialise, unseal, and carry out the audit device and the requests, all of them.

    Args:
        connect: makes a connection to it.
        audit: OpenBao's stanza of the audit device.
        requests: OpenBao's declared requests, by name.

    Raises:
        ServerError: it refused one.
    """
    made = _ask(connect, "sys/init", {"secret_shares": 1, "secret_threshold": 1})
    root = str(made["root_token"])
    _ask(connect, "sys/unseal", {"key": made["keys"][0]})
    device = {"type": audit["type"], "options": audit["options"]}
    _ask(connect, f"sys/audit/{audit['path']}", device, root)
    for one in requests.values():
        _ask(connect, str(one["path"]), one["data"], root)
    _ask(connect, "auth/token/revoke-self", {}, root)


def _ask(connect: Connect, path: str, data: Mapping[str, Any], token: str | None = None) -> dict[str, Any]:
    connection = connect()
    connection.timeout = _PATIENCE_S  # keys are made and mounts set up meanwhile
    try:
        connection.request("PUT", f"/v1/{path}", json.dumps(data), {} if token is None else {"X-Vault-Token": token})
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status >= _REFUSED:
        raise ServerError(f"HashiCorp Vault answered {answer.status} to {path}: {body[:200]!r}", "correct the request")
    found: dict[str, Any] = json.loads(body or b"{}")
    return found
