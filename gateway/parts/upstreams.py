"""Upstreams as configured: their connectors opened, and the stock of their tools."""

import logging
import os
import ssl
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from connectors import code, http, sql
from connectors.code import CodeConnector
from connectors.http import HttpApi, HttpApiOptions
from connectors.mcp.callers import CallersConnector
from connectors.mcp.http import HttpConnector, HttpOptions
from connectors.mcp.lent import LentConnector
from connectors.mcp.places import Crowd
from connectors.mcp.pool import Pool
from connectors.mcp.process import Command
from connectors.mcp.stdio import StdioConnector
from connectors.sql import SqliteConnector
from gateway.adapters.credentials import SecretSource, StaticCredentials, read_secret
from gateway.core.catalog import Shelf
from gateway.core.connector import Connector, Discovering
from gateway.core.errors import Unavailable
from gateway.core.known import KnownValues
from gateway.core.needles import UnfitSecret
from gateway.core.pinning import PinBook
from gateway.core.sandbox import SandboxRunner
from gateway.core.tool import Tool
from gateway.parts import minting
from gateway.parts.confining import Confining, tried
from gateway.parts.shelving import Source, declared_shelf
from gateway.parts.stock import Rhythm, Stock
from gateway.settings import GatewaySettings, SettingsError, catalogue
from gateway.settings.upstreams import CodeUpstream, HookUpstream, HttpUpstream, McpUpstream, SqlUpstream, Upstream
from sandbox.runner import BwrapRunner, Options

_ByCommand = StdioConnector | LentConnector | CallersConnector


@dataclass(frozen=True, slots=True)
class Upstreams:
    """The open connectors of one gateway.

    Attributes:
        all: by server name.
        discovering: those whose upstream describes its own tools.
        sandbox: what runs code, where there is an upstream of kind code.
    """

    all: Mapping[str, Connector]
    discovering: Mapping[str, Discovering]
    sandbox: SandboxRunner | None = None


async def connect(
    settings: GatewaySettings, static: StaticCredentials, known: KnownValues, stack: AsyncExitStack
) -> Upstreams:
    """Open every configured connector; ``stack`` closes them. An upstream that is down does not stop the others.

    Secrets of child processes are added to ``known``; ``static`` gives the credentials of discovery and pings.

    Raises:
        SettingsError: an upstream cannot be used as it is configured.
    """
    pool = await stack.enter_async_context(Pool())
    confining = await tried(settings, runner(settings))
    means = _Means(pool, static, known, settings.leases.keys(), confining)
    found: dict[str, Connector] = {}
    discovering: dict[str, Discovering] = {}
    sandbox = await stack.enter_async_context(runner(settings)) if _runs_code(settings) else None
    for name, upstream in settings.upstreams.items():
        if isinstance(upstream, McpUpstream):
            discovering[name] = await stack.enter_async_context(_mcp(name, upstream, means))
            found[name] = discovering[name]
        elif isinstance(upstream, CodeUpstream):
            assert sandbox is not None
            found[name] = CodeConnector(sandbox)
        elif isinstance(upstream, HookUpstream):
            continue  # nothing is carried out there, and nothing is to be asked
        else:
            found[name] = await stack.enter_async_context(_declared(name, upstream))
    return Upstreams(found, discovering, sandbox)


def runner(settings: GatewaySettings) -> BwrapRunner:
    """The sandbox as configured; not started."""
    wanted = settings.sandbox
    options = Options(
        bwrap=wanted.bwrap,
        python=wanted.python,
        slots=wanted.slots,
        first_uid=wanted.first_uid,
        hidden=(settings.state,),
        groups=wanted.groups,
    )
    return BwrapRunner(options)


def _runs_code(settings: GatewaySettings) -> bool:
    return any(isinstance(upstream, CodeUpstream) for upstream in settings.upstreams.values())


def stocked(
    settings: GatewaySettings, upstreams: Upstreams, pins: PinBook, publish: Callable[[Sequence[Shelf]], None]
) -> Stock:
    """The stock of these upstreams and of the catalogue files; it publishes nothing before it is entered.

    Raises:
        SettingsError: the catalogue cannot be used.
    """
    entries = catalogue.load(settings.catalogue)
    tools = [*catalogue.declared(entries, settings), *catalogue.advised(entries, settings)]
    problems = [problem for tool in tools for problem in _misbound(tool, settings.upstreams[tool.server])]
    taken = Counter(tool.wire_name for tool in tools)
    problems += [f"{tool.fqn}: another tool has this name on the wire" for tool in tools if taken[tool.wire_name] > 1]
    if problems:
        raise SettingsError([f"catalogue: {problem}" for problem in problems])
    sources = [
        Source(name, upstream, entries, upstreams.discovering[name])
        for name, upstream in settings.upstreams.items()
        if isinstance(upstream, McpUpstream)
    ]
    hold = settings.governance.suspicious == "hold"
    rhythm = Rhythm(settings.discovery.start_s, settings.discovery.refresh_s, hold=hold)
    return Stock([declared_shelf(tool) for tool in tools], sources, pins, publish, rhythm)


@dataclass(frozen=True, slots=True)
class _Means:
    """What MCP connectors are made with."""

    pool: Pool
    static: StaticCredentials
    known: KnownValues
    leased: Collection[str]
    confining: Confining


def _mcp(name: str, upstream: McpUpstream, means: _Means) -> HttpConnector | _ByCommand:
    if upstream.url is not None:
        # Read at each use, as for a call: a rotated credential counts at once. A leased one is for calls only.
        given = upstream.discovery_credential if upstream.credential in means.leased else upstream.credential
        options = HttpOptions(credential=partial(means.static.headers, given), wanting=_wants_log(name))
        try:
            return HttpConnector(upstream.url, means.pool, options)
        except ValueError as error:
            raise SettingsError([f"upstreams.{name}.url: {error}"]) from None
    return _by_command(name, upstream, means)


def _by_command(name: str, upstream: McpUpstream, means: _Means) -> _ByCommand:
    path = upstream.env.get("PATH", os.environ.get("PATH", os.defpath))
    environment = {"PATH": os.environ.get("PATH", os.defpath), **_environment(name, upstream, means.known)}
    boxing = means.confining.boxing(name, upstream, path if isinstance(path, str) else os.defpath)
    command, log = Command(upstream.command, environment, upstream.cwd, boxing=boxing), _child_log(name)
    crowd = Crowd(upstream.processes, upstream.user_share, upstream.idle_s)
    if upstream.credential is not None:
        return LentConnector(command, log, crowd=crowd)
    if upstream.process == "shared":
        return StdioConnector(command, log)
    return CallersConnector(command, log, crowd=crowd)


def _environment(server: str, upstream: McpUpstream, known: KnownValues) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, given in upstream.env.items():
        if isinstance(given, str):
            values[name] = given
            continue
        what = f"upstreams.{server}.env.{name}"
        try:
            values[name] = read_secret(what, SecretSource(env=given.env, file=given.file), os.environ)
            known.add(values[name])
        except Unavailable as error:
            raise SettingsError([error.detail]) from None
        except UnfitSecret as error:
            raise SettingsError([f"{what} cannot be kept out of outputs: {error}"]) from None
    return values


def _misbound(tool: Tool, upstream: Upstream) -> list[str]:
    if isinstance(upstream, SqlUpstream):
        if upstream.database is None:
            return minting.misbound(tool)
        return sql.check(tool, upstream.database)
    if isinstance(upstream, CodeUpstream):
        return code.check(tool)
    return http.check(tool) if isinstance(upstream, HttpUpstream) else []


def _declared(name: str, upstream: SqlUpstream | HttpUpstream) -> Any:
    if isinstance(upstream, SqlUpstream):
        return minting.postgres(name, upstream) if upstream.database is None else SqliteConnector(upstream.database)
    try:
        fresh = partial(ssl.create_default_context, cafile=upstream.ca_certificate)
        tls = None if upstream.ca_certificate is None else fresh()
        return HttpApi(upstream.origin, HttpApiOptions(upstream.allow_networks, tls=tls, fresh_tls=fresh))
    except OSError:  # an error of TLS is one
        raise SettingsError([f"upstreams.{name}.ca_certificate: it cannot be read"]) from None
    except ValueError as error:
        raise SettingsError([f"upstreams.{name}: {error}"]) from None


def _child_log(name: str) -> Callable[[str], None]:
    log = logging.getLogger(f"ostiary.upstream.{name}")
    # What a child writes is untrusted and may quote arguments: only for operators who turn debugging on.
    return lambda line: log.debug("%s", line)


def _wants_log(name: str) -> Callable[[Sequence[str]], None]:
    log = logging.getLogger(f"ostiary.upstream.{name}")

    def told(scopes: Sequence[str]) -> None:
        log.warning("a call's token had too few scopes; at level debug the log says which the server wants")
        # Its own names for them are as untrusted as what a child writes.
        log.debug("wanted scopes: %s", " ".join(scopes))

    return told
