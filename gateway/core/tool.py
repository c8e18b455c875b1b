"""A pinned tool: what the catalogue and the approved upstream definition say, as immutable data."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import Any

from gateway.core.canonical import encode

# Of longer names nothing is kept from one call to the next.
USUAL_NAME = 256


class EffectClass(StrEnum):
    """What a tool does to the world, least first."""

    __hash__ = str.__hash__  # Enum's own is Python

    READ = "read"
    WRITE = "write"
    DESTRUCTIVE = "destructive"
    MONEY = "money"


class Kind(StrEnum):
    """What is offered under a name. One catalogue and one pipeline hold all kinds; ``tool`` in them means any."""

    __hash__ = str.__hash__  # Enum's own is Python

    TOOL = "tool"
    PROMPT = "prompt"
    RESOURCE = "resource"
    COMPLETION = "completion"
    SUBSCRIPTION = "subscription"
    # A coding agent's own tool: it is asked about, and never carried out here.
    HOOK = "hook"

    @property
    def prefix(self) -> str:
        """What the name inside begins with. No tool's name has a slash in it, so none is taken for another kind."""
        return "" if self is Kind.TOOL else f"{self}s/"


@lru_cache(maxsize=1024)  # surfaces ask of every call
def kind_of(name: str) -> Kind:
    """The kind that the name inside, without its server, is of."""
    before, slash, _ = name.partition("/")
    return _BY_PREFIX.get(before, Kind.TOOL) if slash else Kind.TOOL


_BY_PREFIX: Mapping[str, Kind] = {f"{kind}s": kind for kind in Kind if kind is not Kind.TOOL}


# What is named by an address, its own or one that a template makes.
ADDRESSED = frozenset({Kind.RESOURCE, Kind.SUBSCRIPTION})


class ConnectorKind(StrEnum):
    """Which connector carries out a tool."""

    MCP = "mcp"
    SQL = "sql"
    HTTP = "http"
    CODE = "code"
    # None: the agent acts on its own.
    HOOK = "hook"


@dataclass(frozen=True, slots=True)
class Measure:
    """A number in the arguments that adds up over a run, such as an amount.

    Attributes:
        name: what policy sees as ``run.sums[name]`` (the currency is appended: ``amount.EUR``).
        pointer: JSON pointer of an integer argument (money in minor units).
        currency_pointer: JSON pointer of its currency, if it has one.
    """

    name: str
    pointer: str
    currency_pointer: str | None = None


@dataclass(frozen=True, slots=True)
class ToolLimits:
    """Limits the catalogue sets for one tool; None = none of its own.

    Attributes:
        per_minute: calls a minute and principal.
        concurrency: calls at a time over all principals.
        timeout_s: longest the connector may take.
        max_output_bytes: longest result.
    """

    per_minute: int | None = None
    concurrency: int | None = None
    timeout_s: float = 30.0
    max_output_bytes: int = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Vendor:
    """Who runs the upstream and on what terms; policy reads it (GOV-2).

    Attributes:
        name: vendor.
        region: where data is processed, e.g. ``eu``.
        retention_days: how long the vendor keeps data; None = not stated.
        price_micros: price of a call in millionths of ``currency``.
        currency: ISO 4217 code of the price.
    """

    name: str = "unspecified"
    region: str = "unspecified"
    retention_days: int | None = None
    price_micros: int = 0
    currency: str = "EUR"


@dataclass(frozen=True)  # without slots, so that its names are made once
class Tool:
    """One tool of one upstream, pinned.

    Attributes:
        server: upstream name, no ``__`` in it.
        name: name at the upstream, behind ``prompts/`` where it is a prompt's; ``resources/`` and an address or a
            template of addresses; ``completions/`` and the name here of what is completed; ``subscriptions/`` and the
            address or template of what is followed; ``hooks/`` where its agent acts itself.
        connector: which connector carries it out.
        definition: the approved MCP tool definition served to clients (name, description, inputSchema ...).
        digest: ``definition_digest`` of what was approved; the pin.
        effect: effect class; from the catalogue, never from upstream annotations.
        listed: False only for the stand-in of a tool that does not exist.
        big_integers: whether integers beyond 2^53 are admitted (they reach policy as strings).
        binding: connector-specific part of the catalogue entry (statement, method and path ...).
        uri: the address that is read, where it is made of a template; the rest of it is the template's.
    """

    server: str
    name: str
    connector: ConnectorKind
    definition: Mapping[str, Any]
    digest: str
    effect: EffectClass = EffectClass.DESTRUCTIVE
    listed: bool = True
    reversible: bool = False
    open_world: bool = True
    labels: tuple[str, ...] = ()
    measures: tuple[Measure, ...] = ()
    limits: ToolLimits = ToolLimits()
    vendor: Vendor = Vendor()
    credential: str | None = None
    big_integers: bool = False
    binding: Mapping[str, Any] = field(default_factory=dict)
    uri: str | None = None

    @cached_property
    def kind(self) -> Kind:
        """What it is, by its name."""
        return kind_of(self.name)

    @cached_property
    def fqn(self) -> str:
        """``server.name``: the tool's name in policy, log, CLI and REST. Of a read address the template's.

        An address that a caller makes up may name a person: it belongs into payloads, which can be erased.
        """
        return f"{self.server}.{self.name}"

    @cached_property
    def decided_name(self) -> str:
        """What policy and the run's scope decide on, without the server: the very address that is read."""
        return self.name if self.uri is None else f"{self.kind.prefix}{self.uri}"

    @cached_property
    def decided_fqn(self) -> str:
        """``server.decided_name``."""
        return self.fqn if self.uri is None else f"{self.server}.{self.decided_name}"

    @property
    def is_template(self) -> bool:
        """Whether it stands for all the addresses a template makes. No address of its own can hold a brace."""
        return self.kind in ADDRESSED and "{" in self.name

    @property
    def own_name(self) -> str:
        """Its name at the upstream."""
        return self.name.removeprefix(self.kind.prefix) if "/" in self.name else self.name

    @property
    def wire_name(self) -> str:
        """Name on the aggregate MCP endpoint, ``server__name``; at most 64 characters of ``[A-Za-z0-9_-]``.

        A tool and a prompt may have the same one. Of a resource it is an address, ``ostiary:server:ADDRESS``: one that
        no client takes for something to fetch by itself, and in which nothing can be normalised.
        """
        if self.kind is Kind.RESOURCE:
            return f"{URI_SCHEME}:{self.server}:{self.own_name}"
        plain = f"{self.server}__{self.own_name}"
        wire = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in plain)
        if wire == plain and len(wire) <= _WIRE_NAME_MAX:
            return wire
        suffix = hashlib.sha256(self.fqn.encode()).hexdigest()[:10]
        return f"{wire[: _WIRE_NAME_MAX - 11]}_{suffix}"


_WIRE_NAME_MAX = 64
URI_SCHEME = "ostiary"


def definition_digest(server: str, connector: str, endpoint: str, definition: Mapping[str, Any]) -> str:
    """Digest of all that an approval of a tool binds: identity of the endpoint and the whole definition.

    Floats may occur in an upstream's schema; they are digested by their JSON text.
    """
    return hashlib.sha256(
        encode({"server": server, "connector": connector, "endpoint": endpoint, "definition": definition})
    ).hexdigest()
