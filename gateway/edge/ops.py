"""For operators: alive, ready, metrics. No credential, no secrets, no paths, no names of what a caller may not see."""

from collections.abc import Awaitable, Callable, Mapping

from anyio import Lock, create_task_group, move_on_after

from gateway.core.errors import GatewayError
from gateway.core.mcpwire import jsonrpc
from gateway.core.ports import Clock
from gateway.edge.reply import Reply

_DEADLINE_S = 2.0
# Whoever asks more often gets the last answer: probes must not be a way to load the parts.
_FRESH_S = 1.0


class Readiness:
    """Asks every part whether it can serve now."""

    def __init__(self, pings: Mapping[str, Callable[[], Awaitable[None]]], clock: Clock) -> None:
        """``pings`` by part name; each raises ``GatewayError`` where its part is not well."""
        self._pings = pings
        self._clock = clock
        self._lock = Lock()
        self._asked_at = float("-inf")
        self._parts: dict[str, str] = {}

    async def page(self) -> Reply:
        """200 with every part ``ok``, or 503 saying which is not and why (an enumeration)."""
        async with self._lock:
            if self._clock.monotonic() - self._asked_at >= _FRESH_S:
                self._parts = dict.fromkeys(self._pings, "timeout")
                async with create_task_group() as group:
                    for name in self._pings:
                        group.start_soon(self._ask, name)
                self._asked_at = self._clock.monotonic()
        ready = all(state == "ok" for state in self._parts.values())
        body = {"status": "ready" if ready else "unavailable", "parts": self._parts}
        return Reply(200 if ready else 503, jsonrpc.encode(body))

    async def _ask(self, name: str) -> None:
        with move_on_after(_DEADLINE_S):
            try:
                await self._pings[name]()
            except GatewayError as error:
                self._parts[name] = error.cause_code
            # A ping that breaks its contract says that its part is not well; the others are still asked.
            except Exception:  # noqa: BLE001
                self._parts[name] = "broken"
            else:
                self._parts[name] = "ok"


def alive() -> Reply:
    """The process answers."""
    return Reply(200, b'{"status":"alive"}')
