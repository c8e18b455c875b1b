"""A gateway as it is composed in production, the servers behind it, and everybody's credentials."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from starlette.types import ASGIApp

from deploy.campaigns.rpc_fuzz import upstream
from deploy.campaigns.rpc_fuzz.case import MAY_CALL, SEES_ONLY, Who
from deploy.campaigns.rpc_fuzz.client import URL, Client
from deploy.campaigns.rpc_fuzz.upstream import Upstream
from gateway import app
from gateway.adapters.identity import create_key
from gateway.adapters.ledger.storage import files
from gateway.core.call import Principal
from gateway.core.desk import TokenIssuer
from gateway.core.ports import Ports
from gateway.edge import asgi
from gateway.settings import file as settings_file

HERE: Final = Path(__file__).resolve().parent
_DAY_US: Final = 86_400_000_000
_LOOKS: Final = 20
_LOGGED: Final = logging.ERROR


@dataclass(slots=True)
class Ears(logging.Handler):
    """Hears what a gateway logs as an error, or with a traceback.

    Attributes:
        heard: a sentence each.
    """

    heard: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Hear everything."""
        logging.Handler.__init__(self, logging.NOTSET)

    __hash__ = object.__hash__

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it if it is bad."""
        if record.levelno >= _LOGGED or record.exc_info:
            trace = logging.Formatter().formatException(record.exc_info) if record.exc_info else ""
            self.heard.append(f"logged: {record.name}: {record.getMessage()} {trace[-1500:]}")


class NotReady(Exception):
    """The gateway does not offer what the campaign needs."""


Spoil = Callable[[Ports], Ports]
Wrap = Callable[[ASGIApp], ASGIApp]


@dataclass(frozen=True, slots=True)
class Breakage:
    """How a gateway is broken on purpose, to show that it is found out; by default not at all.

    Attributes:
        ports: what becomes of its ports.
        app: what becomes of its application.
    """

    ports: Spoil = lambda ports: ports
    app: Wrap = lambda app: app


@dataclass(frozen=True, slots=True)
class World:
    """One gateway while it runs.

    Attributes:
        client: who talks to it.
        upstream: the servers behind it.
        ears: hear what it logs.
    """

    client: Client
    upstream: Upstream
    ears: Ears


@asynccontextmanager
async def opened(folder: Path, breakage: Breakage) -> AsyncIterator[World]:
    """A gateway of its own, with its configuration and state in the empty ``folder``."""
    async with upstream.running() as servers:
        _prepare(folder, servers.url)
        chosen, ears = settings_file.load(folder / "gateway.toml"), Ears()
        async with app.opened(chosen, URL) as gateway:
            await _stocked(gateway)
            servers.watch(folder / "state" / files.DATABASE)
            options = asgi.Options(issuer=chosen.identity.issuer, per_minute=chosen.limits.edge_per_minute)
            door = asgi.build(breakage.ports(gateway.parts.ports), gateway.parts.desk, options)
            tokens = _tokens(gateway.parts.desk.issuer, gateway.parts.ports)
            with _listening(ears):
                yield World(Client(breakage.app(door), tokens), servers, ears)


async def _stocked(gateway: app.Gateway) -> None:
    # A machine that is busy may have kept the servers from saying what they have when the gateway started.
    needed = set().union(*MAY_CALL.values(), *SEES_ONLY.values())
    for _ in range(_LOOKS):
        if needed <= {tool.fqn for tool in gateway.parts.ports.catalog.tools()}:
            return
        for server in (upstream.BOX, upstream.ATTIC):
            await gateway.parts.stock.refresh(server)
    raise NotReady("not every tool is there")


def _prepare(folder: Path, url: str) -> None:
    (folder / "state").mkdir(mode=0o700)
    create_key(folder / "state" / "keys" / "issuer.pem")
    for name in ("gateway.toml", "catalogue.toml"):
        (folder / name).write_text((HERE / name).read_text("utf-8").replace("@URL@", url), "utf-8")


def _tokens(issuer: TokenIssuer, ports: Ports) -> dict[Who, str]:
    now = ports.clock.now_us()
    amber = Principal(
        issuer="urn:ostiary:local",
        user="ann",
        agent=Who.AMBER.value,
        groups=frozenset(),
        scopes=frozenset({"tools"}),
        auth_method="local",
        jti=ports.clock.uuid(),
        expires_us=now + _DAY_US,
    )
    made = {
        Who.AMBER: amber,
        Who.BIRCH: replace(amber, user="ben", agent=Who.BIRCH.value, jti=ports.clock.uuid()),
        Who.SCOPELESS: replace(amber, jti=ports.clock.uuid(), scopes=frozenset({"runs"})),
    }
    tokens = {who: issuer.issue(principal) for who, principal in made.items()}
    head, dot, signature = tokens[Who.AMBER].rpartition(".")
    return tokens | {Who.FORGED: f"{head}{dot}{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"}


@contextmanager
def _listening(ears: Ears) -> Iterator[None]:
    """The ears hear the process's logs, and what tasks raise that nobody awaits."""

    def unhandled(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        ears.heard.append(f"unhandled: {context.get('message')} {context.get('exception')!r}")

    loop = asyncio.get_running_loop()
    logging.getLogger().addHandler(ears)
    loop.set_exception_handler(unhandled)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(ears)
        loop.set_exception_handler(None)
