"""Logins of scope ``run`` between two reads: who may have them again, and until when.

A login serves one call at a time, and only calls of the very same issuer, user, agent (and whoever acts through it),
run, tool and template. Anything that is unknown of a call means that it gets none of these.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from gateway.core.leasing import Holder, Template

_OVER = 8192


class Pooled(Protocol):
    """A login that may be kept.

    Attributes:
        template: what it was minted by; its role is the template's.
        ends_at: when it ends by itself, on the clock that the pool is asked with.
        is_retired: whether its token gets no new users.
    """

    @property
    def template(self) -> Template: ...  # noqa: D102

    @property
    def ends_at(self) -> float: ...  # noqa: D102

    @property
    def is_retired(self) -> bool: ...  # noqa: D102


P = TypeVar("P", bound=Pooled)


@dataclass(frozen=True, slots=True)
class Key:
    """Who may use a login again."""

    issuer: str
    user: str
    agent: str
    run: str
    tool: str
    template: str
    delegation: tuple[str, ...] = ()


def key_of(template: Template, holder: Holder) -> Key | None:
    """The key of a call; None where the template is for single calls, or something of the holder is not known."""
    agent, run, tool = holder.agent, holder.run_id, holder.tool
    if not template.is_shared or None in (holder.issuer, holder.user, agent, run, tool):
        return None
    assert holder.issuer is not None
    assert holder.user is not None
    assert agent is not None
    assert run is not None
    assert tool is not None
    return Key(holder.issuer, holder.user, agent, run, tool, template.name, holder.delegation)


@dataclass(slots=True)
class Pool(Generic[P]):
    """Logins nobody uses at the moment.

    Attributes:
        expire: ends one that nobody came for.
        idle_s: how long one waits.
    """

    expire: Callable[[P], object]
    idle_s: float = 30.0
    _idle: dict[Key, list[tuple[P, asyncio.TimerHandle]]] = field(default_factory=dict)
    # Runs that have ended lately: what comes back from a call that outlived its run is not kept.
    _over: dict[str, None] = field(default_factory=dict)

    def take(self, key: Key, template: Template, until: float) -> P | None:
        """One that is good for this call: of this very template, and living until then. It is the caller's alone."""
        waiting = self._idle.get(key, [])
        for place, (held, timer) in enumerate(waiting):
            if held.template == template and held.ends_at >= until and not held.is_retired:
                timer.cancel()
                del waiting[place]
                if not waiting:
                    del self._idle[key]
                return held
        return None

    def put(self, key: Key, held: P) -> bool:
        """Keep one for the next call of the key; False = its run has ended, or its token: it must be ended."""
        if key.run in self._over or held.is_retired:
            return False
        timer = asyncio.get_running_loop().call_later(self.idle_s, self._expired, key, held)
        self._idle.setdefault(key, []).append((held, timer))
        return True

    def close(self, run_id: str) -> list[P]:
        """The run has ended: all of its logins, to be ended; none of it is kept from now on."""
        self._over[run_id] = None
        while len(self._over) > _OVER:
            del self._over[next(iter(self._over))]
        return self._drain(lambda key, _: key.run == run_id)

    def drain(self, meant: Callable[[P], bool]) -> list[P]:
        """Those that are meant, to be ended."""
        return self._drain(lambda _, held: meant(held))

    def _drain(self, meant: Callable[[Key, P], bool]) -> list[P]:
        found: list[P] = []
        for key, waiting in list(self._idle.items()):
            left = [(held, timer) for held, timer in waiting if not meant(key, held)]
            for held, timer in waiting:
                if meant(key, held):
                    timer.cancel()
                    found.append(held)
            if left:
                self._idle[key] = left
            else:
                del self._idle[key]
        return found

    def _expired(self, key: Key, held: P) -> None:
        for one in self._drain(lambda other, candidate: other == key and candidate is held):
            self.expire(one)
