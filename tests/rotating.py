"""What tests of keys that are replaced at real gateways have in common: settings, the vault, and agents that call."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import httpx

from deploy.servers import vault_setup
from deploy.servers.erp import CATALOGUE
from deploy.servers.openbao import Request
from gateway.core.vault_plan import Needs, pieces
from tests.fakes.leases import READ, WRITE
from tests.gateways import Gateway, until

AGENT: Final = "ap-agent"
SETTINGS: Final = f"""
state = "state"
catalogue = ["{CATALOGUE}"]
[listen]
port = 0
[limits]
edge_per_minute = 60000
[policy]
deadline_ms = 2000
[policy.data.gateway.scope.agents.{AGENT}]
allow = ["erp.*"]
[policy.data.gateway.scope.users.dora]
allow = ["erp.*"]
"""


def requests(needs: Needs) -> list[Request]:
    """What the vault is to hold for ``needs`` besides what the lease tests have."""
    has = {one.path for one in vault_setup.held(Needs((READ, WRITE), role_id="ostiary-gateway"))}
    added = [piece for piece in pieces(needs) if piece.path not in has or piece.path.endswith("ostiary-gateway")]
    return [Request(f"rotation-{at}", piece.path, piece.body) for at, piece in enumerate(added)]


@dataclass
class Caller:
    """An agent that calls without pause, in threads of its own."""

    gateway: Gateway
    token: str
    seen: list[tuple[int, str]] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def go_on(self) -> None:
        """Wait for ten more calls."""
        before = len(self.seen)
        until(lambda: len(self.seen) > before + 10)

    def call(self) -> None:
        """Until it is told to stop."""
        with self.gateway.client(self.token) as http:
            while not self.stop.is_set():
                body = {"arguments": {"number": "PO-1001"}}
                try:
                    answer = http.post("/v1/tools/erp.find_order/call", json=body)
                except httpx.HTTPError:
                    return
                self.seen.append((answer.status_code, "" if answer.status_code == 200 else answer.text))


@contextmanager
def calling(gateway: Gateway, token: str, at_once: int = 3) -> Iterator[Caller]:
    """So many of them at a time."""
    caller = Caller(gateway, token)
    threads = [threading.Thread(target=caller.call) for _ in range(at_once)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: len(caller.seen) > 5)
        yield caller
    finally:
        caller.stop.set()
        for thread in threads:
            thread.join()
