"""For operators: alive, ready, metrics. No secrets, no paths, no names of what a caller may not see."""

from collections.abc import Mapping
from typing import Any

from anyio import Lock, create_task_group, move_on_after

from gateway.core.desk import Desk, Ping
from gateway.core.errors import GatewayError
from gateway.core.mcpwire import jsonrpc
from gateway.core.ports import Clock
from gateway.edge.reply import Reply

_DEADLINE_S = 2.0
# Other people's servers must not make a probe wait until it gives the gateway up.
_UPSTREAM_DEADLINE_S = 0.5
# Whoever asks more often gets the last answer: probes must not be a way to load the parts, nor other people's servers.
_FRESH_S = 1.0
_UPSTREAMS_FRESH_S = 10.0


class Readiness:
    """Asks every part whether it can serve now."""

    def __init__(self, desk: Desk, clock: Clock) -> None:
        """Asks the pings of the desk; each raises ``GatewayError`` where its part is not well."""
        named = {f"upstream:{name}": ping for name, ping in desk.upstreams.items()}
        named |= {f"issuer:{name}": ping for name, ping in desk.foreign_issuers.items()}
        self._standing = desk.policy.standing
        self._witnesses = desk.witnesses.standing
        self._kills = desk.kills
        self._pins = desk.pins.counts
        self._own = _Round(desk.pings, clock, _FRESH_S, _DEADLINE_S)
        self._upstreams = _Round(named, clock, _UPSTREAMS_FRESH_S, _UPSTREAM_DEADLINE_S)

    async def page(self, *, whole: bool) -> Reply:
        """200 where every part the gateway needs is ``ok``, else 503; each part with its state, an enumeration.

        An upstream or a foreign issuer that is down makes the gateway ``degraded``: its tools fail, its new tokens are
        refused, everybody else's go on. Which there are is said only where the ``whole`` may be known, and which policy
        is in force, ``stale`` where its sources hold another that is not. Policy that is stale is good all the same, so
        it changes no status; nor do witnesses that have not cosigned the log, nor what operators have stopped.
        """
        own, upstreams = await self._own.states(), await self._upstreams.states()
        is_able = _are_well(own)
        status = "unavailable" if not is_able else "ready" if _are_well(upstreams) else "degraded"
        page: dict[str, Any] = {"status": status, "parts": {**own, **upstreams} if whole else own}
        if whole:
            now = self._standing()
            page["policy"] = {"revision": now.revision, "stale": bool(now.problems)}
            stopped = sum(kill.lifted_us is None for kill in self._kills.all())
            if stopped:
                page["kills"] = stopped
            page["tools"] = dict(self._pins())
            seen = self._witnesses()
            if seen.states:
                page["witnesses"] = {"states": seen.states, "size": seen.size, "unwitnessed_since_us": seen.since_us}
        return Reply(200 if is_able else 503, jsonrpc.encode(page))


class _Round:
    """Pings that are asked together, at most once in ``fresh_s``."""

    def __init__(self, pings: Mapping[str, Ping], clock: Clock, fresh_s: float, deadline_s: float) -> None:
        self._pings = pings
        self._clock = clock
        self._fresh_s = fresh_s
        self._deadline_s = deadline_s
        self._lock = Lock()
        self._asked_at = float("-inf")
        self._states: dict[str, str] = {}

    async def states(self) -> Mapping[str, str]:
        async with self._lock:
            if self._clock.monotonic() - self._asked_at >= self._fresh_s:
                self._states = dict.fromkeys(self._pings, "timeout")
                async with create_task_group() as group:
                    for name in self._pings:
                        group.start_soon(self._ask, name)
                self._asked_at = self._clock.monotonic()
            return self._states

    async def _ask(self, name: str) -> None:
        with move_on_after(self._deadline_s):
            try:
                await self._pings[name]()
            except GatewayError as error:
                self._states[name] = error.cause_code
            # A ping that breaks its contract says that its part is not well; the others are still asked.
            except Exception:  # noqa: BLE001
                self._states[name] = "broken"
            else:
                self._states[name] = "ok"


def _are_well(states: Mapping[str, str]) -> bool:
    return all(state == "ok" for state in states.values())


def alive() -> Reply:
    """The process answers."""
    return Reply(200, b'{"status":"alive"}')
