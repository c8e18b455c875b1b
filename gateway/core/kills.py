"""The kill switch: who or what is stopped until a quorum lifts it, and what a call of theirs is told.

A kill covers a whole principal: names are compared folded (NFKC, case), by whatever issuer, and an agent also where it
acts through others. It is state of the log, so it outlives a restart and holds at every gateway on the same log.
"""

import unicodedata
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Protocol

from gateway.core.approval import Action
from gateway.core.call import Caller, Intent, Lease, Principal
from gateway.core.errors import GatewayError, InvalidArguments, Killed, OutcomeUnknown, Reason, ToolFailed
from gateway.core.leasing import Holder
from gateway.core.tool import EffectClass

_MOST = 256
_WORDS = {
    "agent": "this agent is stopped",
    "user": "whoever acts for this person is stopped",
    "tool": "this tool is stopped",
    "run": "this run is stopped",
    "all": "all calls are stopped",
}


class Kind(StrEnum):
    """What a kill stops."""

    AGENT = "agent"
    USER = "user"
    TOOL = "tool"
    RUN = "run"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Target:
    """What is meant, by its folded name; empty where everything is."""

    kind: Kind
    name: str = ""


@dataclass(frozen=True, slots=True)
class Cut:
    """What became of what was in use when a kill took effect.

    Attributes:
        calls: calls that were broken off.
        running: of these, how many had not ended when the answer was made; each ends as soon as its upstream lets go.
        ended: credentials that the vault says are gone.
        not_ended: credentials that the vault says it still has; they are tried again.
        unverifiable: credentials of which nobody can say, as the vault does not answer; they are tried again.
    """

    calls: int = 0
    running: int = 0
    ended: int = 0
    not_ended: int = 0
    unverifiable: int = 0

    def __add__(self, other: "Cut") -> "Cut":
        """Both together."""
        return Cut(
            self.calls + other.calls,
            self.running + other.running,
            self.ended + other.ended,
            self.not_ended + other.not_ended,
            self.unverifiable + other.unverifiable,
        )


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill.

    Attributes:
        id: of its ``kill.engaged`` record.
        mark: keyed hash of what is meant.
        name: as it was given; None where it was erased.
        voters: keyed hashes of those who asked to lift it.
        cut: what the gateways did, as far as they have said so.
        lifted_us: since when it is not in force any more.
    """

    id: str
    kind: Kind
    mark: str
    at_us: int
    name: str | None = None
    reason: str | None = None
    by: str | None = None
    voters: frozenset[str] = frozenset()
    cut: Cut = Cut()
    lifted_us: int | None = None


class Watch(Protocol):
    """A call whose intent is durable, while it is under way."""

    async def look(self, lease: Lease) -> None:
        """Once more, with the credential at hand and nothing sent yet.

        Raises:
            Killed: it is stopped.
            Unavailable: that cannot be told.
        """

    def broken_off(self) -> GatewayError:
        """What is said of the call where it was broken off."""


class Kills(Protocol):
    """What is stopped. Closed: where that cannot be told, nothing is executed."""

    async def check(self, caller: Caller) -> GatewayError | None:
        """What is said to whoever may know of the tool, where it is the tool that is stopped; None = nothing is.

        Raises:
            Killed: agent, user, run or everything is stopped.
            Unavailable: that cannot be told.
        """

    async def check_parked(self, action: Action) -> None:
        """Whether whoever made a call that was parked may hear of it.

        Raises:
            Killed: agent, user, tool, run or everything is stopped.
            Unavailable: that cannot be told.
        """

    async def check_person(self, principal: Principal) -> None:
        """Whether a person may change anything at the gateway itself.

        Raises:
            Killed: they are stopped as a user; what else is stopped is about calls.
            Unavailable: that cannot be told.
        """

    def watch(self, intent: Intent, stop: Callable[[], None]) -> AbstractContextManager[Watch]:
        """Call ``stop`` when a kill covers this call, from now until the bracket is left.

        Raises:
            Killed: one does already.
        """


class KillDesk(Protocol):
    """Engages and lifts. Closed: what is not recorded was not lifted; what is engaged counts before it is recorded."""

    @property
    def quorum(self) -> int:
        """How many different persons must ask for a kill to be lifted."""

    def all(self) -> tuple[Kill, ...]:
        """Every kill, the lifted ones too, oldest first."""

    async def engage(self, by: Principal, kind: Kind, name: str, reason: str) -> tuple[Kill, Cut]:
        """Stop what is meant, now, and end its calls and credentials at this gateway; the others do the same.

        Raises:
            InvalidArguments: nothing can be meant by that name.
            Unavailable: the log cannot be written. It is in force at this gateway all the same, and recorded as soon as
                the log can be written.
        """

    async def lift(self, by: Principal, kill_id: str, reason: str) -> Kill:
        """Ask for a kill to be lifted; with the last voice that is needed it is.

        Raises:
            NotFound: no such kill is in force.
            Conflict: they have asked already.
            Forbidden: they are who is stopped.
            Unavailable: the log cannot be written.
        """


def folded(name: str) -> str:
    """A name as it is compared: nobody is somebody else by case, width or white space around it."""
    return _folded_before(name) if len(name) <= _MOST else _folded(name)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name.strip()).casefold()).strip()


# The same few names come with every call.
_folded_before = lru_cache(maxsize=1024)(_folded)


def target(kind: Kind, name: str) -> Target:
    """What is meant by a name; a tool may be ``server.*``.

    Raises:
        InvalidArguments: nothing can be.
    """
    said = folded(name)
    if (kind is Kind.ALL) is bool(said) or len(said) > _MOST or not said.isprintable():
        raise InvalidArguments("a kill names one agent, user, tool or run; of everything it names nothing")
    server, _, tool = said.partition(".")
    if kind is Kind.TOOL and not (server and tool):
        raise InvalidArguments("a tool is `server.name`, or `server.*` for all of a server", cause_code="tool")
    # Whoever writes a pattern is told that there are none, not that something is stopped which goes on.
    if "*" in (server if kind is Kind.TOOL and tool == "*" else said):
        raise InvalidArguments("names hold no `*`; only `server.*` means several, all tools of it", cause_code="name")
    return Target(kind, said)


def targets_of(holder: Holder) -> tuple[Target, ...]:
    """Whatever would stop this call, the widest first."""
    found = [Target(Kind.ALL)]
    found += [Target(Kind.USER, folded(holder.user))] if holder.user else []
    agents = dict.fromkeys(folded(name) for name in (holder.agent, *holder.delegation) if name)
    found += [Target(Kind.AGENT, name) for name in agents]
    found += [Target(Kind.RUN, folded(holder.run_id))] if holder.run_id else []
    if holder.tool:
        tool = folded(holder.tool)
        found += [Target(Kind.TOOL, f"{tool.partition('.')[0]}.*"), Target(Kind.TOOL, tool)]
    return tuple(found)


def holder_of_caller(caller: Caller, tool: str | None = None) -> Holder:
    """Whose call it is, before anything is decided."""
    principal = caller.principal
    return Holder(
        run_id=caller.run.id,
        call_id=caller.call.id,
        agent=principal.agent,
        user=principal.user,
        tool=tool,
        issuer=principal.issuer,
        delegation=principal.delegation,
    )


def refusal(kind: Kind, kill_id: str) -> Killed:
    """What a stopped call is told; the operator's own words are not for it."""
    detail = f"{_WORDS[kind]} by its operators (kill {kill_id})"
    reason = Reason(f"kill.{kind}", "gateway", detail, f"ostiary kill list: {kill_id}")
    return Killed(detail, reasons=(reason,), cause_code=f"kill.{kind}")


def broken_off(intent: Intent, kind: Kind, kill_id: str, *, is_out: bool) -> GatewayError:
    """What is said of a call that a kill broke off; ``is_out``: its connector had been invoked."""
    said = refusal(kind, kill_id)
    if not is_out:
        return said
    if intent.tool.effect is EffectClass.READ:
        return ToolFailed(f"broken off: {said.detail}", reasons=said.reasons, cause_code=said.cause_code)
    detail = f"broken off, and its effect may have happened: {said.detail}"
    return OutcomeUnknown(detail, reasons=said.reasons, cause_code=said.cause_code)
