"""``ostiary serve`` and ``ostiary check``: the gateway of a configuration file."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import click

from gateway import app
from gateway.adapters.identity import KeyFileError
from gateway.adapters.ledger.keyring.key_files import StateRefused
from gateway.cli import home
from gateway.cli.addresses import require_free
from gateway.cli.findings import as_document, as_lines
from gateway.cli.screen import Failed, Misconfigured, answer, json_option, shown
from gateway.core.bundle import BundleError
from gateway.core.errors import GatewayError
from gateway.core.leasing import VaultFault
from gateway.serving.hardening import allow_files, hide_memory
from gateway.settings import GatewaySettings, SettingsError

config_option = click.option(
    "--config", required=True, type=click.Path(path_type=Path), help="Configuration file (gateway.toml)."
)


@click.command()
@config_option
@json_option
def serve(config: Path) -> None:
    """Run the gateway of a configuration file.

    With --json the first line says where it listens: {"url", "mcp_url", "admin_socket"}.
    """
    settings = home.read(config)
    home.prepare(settings.state)
    with home.held(settings.state):
        run(settings, _announce)


@click.command()
@config_option
@json_option
def check(config: Path) -> None:
    """Show the effective configuration and ask every part.

    Secrets are not shown. Each part that cannot be relied on is printed with its fix, and makes the exit code 1.
    """
    settings = home.read(config)
    with _starting():
        findings = anyio.run(app.check, settings)
    document = {"config": settings.redacted(), **as_document(findings)}
    answer(document, [*_effective(settings.redacted()), "", *as_lines(findings)])
    if not document["ok"]:
        raise click.exceptions.Exit(1)


def run(settings: GatewaySettings, ready: Callable[[app.Served], None]) -> None:
    """Serve until SIGINT or SIGTERM; returns after a clean end.

    Raises:
        Failed: what the gateway needs is not there.
    """
    hide_memory()
    allow_files()
    require_free(settings.listen.host, settings.listen.port)
    with _starting():
        anyio.run(_until_signal, settings, ready, backend_options={"use_uvloop": True})


@contextmanager
def _starting() -> Iterator[None]:
    try:
        yield
    except (ExceptionGroup, SettingsError, StateRefused, KeyFileError, BundleError, GatewayError, OSError) as error:
        raise _clear(error) from error


async def _until_signal(settings: GatewaySettings, ready: Callable[[app.Served], None]) -> None:
    # Received from before the start, so that a signal during it ends the gateway as cleanly as a later one.
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        await app.serve(settings, ready=ready, until=signals.__anext__)


def _clear(error: BaseException) -> Failed:
    match error:
        case ExceptionGroup():
            found = _clear(error.exceptions[0])
        case SettingsError():
            found = home.unusable(error)
        case KeyFileError():
            found = Misconfigured(f"{error.path}: {error.problem}", error.fix)
        case BundleError():
            problems = "\n  ".join(error.problems)
            found = Misconfigured(f"the policies cannot be served\n  {problems}", "see `ostiary policy check DIR`")
        case StateRefused():
            found = Misconfigured(str(error))
        case GatewayError():
            fix = error.fix if isinstance(error, VaultFault) else "`ostiary check --config FILE` names the part"
            found = Failed(f"the gateway cannot start: {error.detail}", fix)
        case OSError():
            found = Failed(f"the gateway ended: {error.strerror or error}", "look at the named file or address")
        case _:
            raise error
    return found


def _announce(served: app.Served) -> None:
    document = {"url": served.url, "mcp_url": served.mcp_url, "admin_socket": served.admin_socket}
    answer(document, [f"{key.ljust(12)}  {shown(value)}" for key, value in document.items()])


def _effective(section: Any, path: str = "") -> Iterator[str]:
    if isinstance(section, dict) and section:
        for key, value in section.items():
            yield from _effective(value, f"{path}.{key}" if path else str(key))
    else:
        yield f"{path} = {shown(section)}"
