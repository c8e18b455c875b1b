"""For operators: alive, ready, metrics. No credential, no secrets, no paths, no names of what a caller may not see."""

from collections.abc import Mapping

from anyio import Lock, create_task_group, move_on_after

from gateway.core.desk import Ping
from gateway.core.errors import GatewayError
from gateway.core.mcpwire import jsonrpc
from gateway.core.ports import Clock
from gateway.edge.reply import Reply

_DEADLINE_S = 2.0
# Whoever asks more often gets the last answer: probes must not be a way to load the parts.
_FRESH_S = 1.0


class Readiness:
    """Asks every part whether it can serve now."""

    def __init__(self, parts: Mapping[str, Ping], upstreams: Mapping[str, Ping], clock: Clock) -> None:
        """By name; each ping raises ``GatewayError`` where its part is not well."""
        self._needed = frozenset(parts)
        self._pings = {**parts, **{f"upstream:{name}": ping for name, ping in upstreams.items()}}
        self._clock = clock
        self._lock = Lock()
        self._asked_at = float("-inf")
        self._parts: dict[str, str] = {}

    async def page(self) -> Reply:
        """200 where every part the gateway needs is ``ok``, else 503; each part with its state, an enumeration.

        An upstream that is down makes the gateway ``degraded``: its tools fail, everybody else's go on.
        """
        async with self._lock:
            if self._clock.monotonic() - self._asked_at >= _FRESH_S:
                self._parts = dict.fromkeys(self._pings, "timeout")
                async with create_task_group() as group:
                    for name in self._pings:
                        group.start_soon(self._ask, name)
                self._asked_at = self._clock.monotonic()
        bad = {name for name, state in self._parts.items() if state != "ok"}
        status = "unavailable" if bad & self._needed else "degraded" if bad else "ready"
        return Reply(503 if bad & self._needed else 200, jsonrpc.encode({"status": status, "parts": self._parts}))

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
