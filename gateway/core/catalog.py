"""The catalogue in force: pinned tools, checked arguments, and the one place where a connector is invoked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from anyio import current_time

from gateway.core import measures, resources, scopes
from gateway.core.bell import Bell
from gateway.core.call import Caller, Lease, Raw, Resolved
from gateway.core.connector import Connector
from gateway.core.errors import (
    GatewayError,
    InvalidArguments,
    NotSent,
    OutcomeUnknown,
    Quarantined,
    Reason,
    ToolFailed,
    Unavailable,
)
from gateway.core.pinning import CAUSES, Cause
from gateway.core.tool import USUAL_NAME, ConnectorKind, EffectClass, Tool

Problems = Callable[[Any], list[str]]


@dataclass(frozen=True, slots=True)
class Shelf:
    """A tool with what it takes to use it.

    Attributes:
        tool: the pinned tool.
        problems: says what is wrong with an arguments object, in safe words; empty = nothing.
        quarantine: why the tool may not be used (its upstream describes it otherwise, say), or None.
    """

    tool: Tool
    problems: Problems
    quarantine: Cause | None = None


@dataclass(slots=True)
class Catalog:
    """The ``Catalog`` port over one immutable generation of tools; ``replace`` swaps in the next one.

    Failure mode: an unknown tool or bad argument is kept in ``Resolved``; anything unforeseen while a connector works
    is ``OutcomeUnknown``.
    """

    connectors: Mapping[str, Connector]
    moment: Callable[[], float] = current_time  # the running loop's, seconds
    bell: Bell = field(default_factory=Bell, init=False)
    _shelves: Mapping[str, Shelf] = field(default_factory=dict)
    _tools: tuple[Tool, ...] | None = None

    def replace(self, shelves: Sequence[Shelf]) -> None:
        """Put a new generation in force; calls already resolved keep the tool they were resolved with.

        Raises:
            ValueError: two of a kind share a name, on the inside or on the aggregate wire.
        """
        by_name = {shelf.tool.fqn: shelf for shelf in shelves}
        on_wire = {(shelf.tool.kind, shelf.tool.wire_name) for shelf in shelves}
        if len(by_name) != len(shelves) or len(on_wire) != len(shelves):
            raise ValueError("two tools of the catalogue have the same name")
        self._shelves = by_name
        self._tools = tuple(shelf.tool for _, shelf in sorted(by_name.items()))
        self.bell.ring()

    def resolve(self, caller: Caller) -> Resolved:
        """Pinned tool; outside the run's scope a tool does not exist. Nothing of the arguments is looked at.

        Of a resource the address is, since it is what is asked for; where a template does not make it, there is none.
        """
        shelf = self._shelf(caller)
        return Resolved(caller, _unlisted(caller.call.tool) if shelf is None else shelf.tool, None)

    def checked(self, target: Resolved) -> Resolved:
        """The tool as it is pinned now, with checked arguments; see ``ports.Catalog``."""
        caller = target.caller
        shelf = self._shelves.get(caller.call.tool)
        if shelf is None or shelf.tool is not target.tool:  # otherwise it is what was found for this call before
            shelf = self._shelf(caller)
        if shelf is None:
            return Resolved(caller, _unlisted(caller.call.tool), None)
        fault = _fault(shelf, caller)
        if fault is not None:
            return Resolved(caller, shelf.tool, fault)
        if not shelf.tool.measures:
            return Resolved(caller, shelf.tool, None)
        try:
            return Resolved(caller, shelf.tool, None, measures.amounts(shelf.tool, caller.call.arguments.value))
        except InvalidArguments as error:
            return Resolved(caller, shelf.tool, error)

    def _shelf(self, caller: Caller) -> Shelf | None:
        shelf = self._shelves.get(caller.call.tool)
        tool = None if shelf is None else resources.read(shelf.tool, caller.call.arguments.value)
        if shelf is None or tool is None or not caller.run.covers(tool.decided_fqn):
            return None
        return shelf if tool is shelf.tool else Shelf(tool, shelf.problems, shelf.quarantine)

    def tools(self) -> Sequence[Tool]:
        """All pinned tools by name."""
        return self._tools or ()

    async def invoke(self, lease: Lease) -> Raw:
        """Carry out the call within its time; see ``ports.Catalog``."""
        intent = lease.intent
        tool, flow = intent.tool, intent.call.flow
        connector = self.connectors.get(tool.server)
        if connector is None:
            raise NotSent("the tool's upstream is not configured", cause_code="no_upstream")
        try:
            with scopes.scope(deadline=self.moment() + intent.timeout_s) as time:
                if flow is not None:
                    flow.timed(time)
                return await connector.invoke(lease)
        except GatewayError:
            raise
        except TimeoutError:
            raise _timed_out(tool) from None
        # A connector that breaks its contract may have sent the call before it broke.
        except Exception as error:
            raise OutcomeUnknown("the connector failed", cause_code="connector_broken") from error
        raise _timed_out(tool)  # only its own deadline ends the scope and not what is around it

    async def ping(self) -> None:
        """Ready once a generation is in force."""
        if self._tools is None:
            raise Unavailable("no catalogue is in force")


def _fault(shelf: Shelf, caller: Caller) -> GatewayError | None:
    arguments = caller.call.arguments
    if shelf.quarantine is not None:
        return _quarantined(shelf.quarantine)
    if arguments.big_integers and not shelf.tool.big_integers:
        return InvalidArguments("an integer beyond 2^53 is not admitted by this tool", cause_code="integer_range")
    problems = shelf.problems(arguments.value)
    if problems:
        return InvalidArguments("; ".join(problems), cause_code="schema")
    return None


def _quarantined(cause: Cause) -> Quarantined:
    why = CAUSES[cause]
    return Quarantined(why, reasons=(Reason(f"pin.{cause}", "gateway.pins", why),), cause_code=f"pin_{cause}")


def _unlisted(name: str) -> Tool:
    # One that was asked for before is told from no hidden tool by what is kept of either: see ``core/policy_input.py``.
    return _stranger(name) if len(name) > USUAL_NAME else _known_stranger(name)


def _stranger(name: str) -> Tool:
    server, _, tool = name.partition(".")
    return Tool(server=server, name=tool, connector=ConnectorKind.MCP, definition={}, digest="", listed=False)


_known_stranger = lru_cache(maxsize=1024)(_stranger)


def _timed_out(tool: Tool) -> GatewayError:
    if tool.effect is EffectClass.READ:
        return ToolFailed("the tool did not answer in time", cause_code="timeout")
    return OutcomeUnknown("the tool did not answer in time", cause_code="timeout")
