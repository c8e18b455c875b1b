"""``ostiary up``: a development gateway on loopback, with everything it needs made on the way."""

import json
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from gateway import app
from gateway.adapters.identity import SCOPES, Grant
from gateway.cli import home
from gateway.cli.addresses import is_loopback
from gateway.cli.reach import state_option
from gateway.cli.screen import Misconfigured, json_option, wants_json
from gateway.cli.serve import run
from gateway.parts.confining import warnings
from gateway.settings import GatewaySettings, SettingsError
from gateway.settings.file import DEVELOPMENT_AGENT, DEVELOPMENT_USER, development

_TTL_S = 7 * 86_400
_WARNINGS = (
    "For development only: tools are pinned at first sight and granted to this token.",
    "An agent with a shell under your user id owns this gateway, its keys and its log. Give it another user id.",
)


@click.command()
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=8470, show_default=True, help="TCP port; 0 = a free one."
)
@click.option(
    "--upstream", multiple=True, metavar="NAME=URL|COMMAND", help="MCP server to put behind it; again for more."
)
@state_option
@json_option
def up(port: int, upstream: tuple[str, ...], state: Path) -> None:
    """Run a development gateway on this machine.

    It listens on loopback, pins the tools at first sight and grants them to the printed token. Ctrl-C ends it. With
    --json the first line is {"url", "mcp_url", "token", "admin_token"}.
    """
    targets = _targets(upstream)
    home.prepare(state)
    with home.held(state):
        try:
            settings = development(state, port, targets)
        except SettingsError as error:
            raise home.unusable(error) from None
        if not is_loopback(settings.listen.host):
            raise Misconfigured("`up` listens on loopback only", "remove listen.host, or use `ostiary serve`")
        token, admin_token = _tokens(settings)
        run(settings, lambda served: _announce(served, (token, admin_token), (*_WARNINGS, *warnings(settings))))


def _targets(upstreams: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in upstreams:
        name, separator, target = text.partition("=")
        if not separator or not name or not target.strip() or name in found:
            raise click.BadParameter(
                f"{text!r} is not NAME=URL or NAME=COMMAND, or gives NAME twice", param_hint="--upstream"
            )
        found[name] = target.strip()
    return found


def _tokens(settings: GatewaySettings) -> tuple[str, str]:
    issuer = home.issuer(settings)
    agent = Grant(DEVELOPMENT_USER, DEVELOPMENT_AGENT, ttl_s=_TTL_S)
    person = Grant(DEVELOPMENT_USER, scopes=SCOPES, ttl_s=_TTL_S)
    return issuer.issue(issuer.principal(agent)), issuer.issue(issuer.principal(person))


def _announce(served: app.Served, tokens: tuple[str, str], cautions: Sequence[str]) -> None:
    token, admin_token = tokens
    if wants_json():
        document = {"url": served.url, "mcp_url": served.mcp_url, "token": token, "admin_token": admin_token}
        click.echo(json.dumps(document))
        for warning in cautions:
            click.echo(f"ostiary: {warning}", err=True)
        return
    console = Console(highlight=False, soft_wrap=True)
    text = Text.assemble(("MCP   ", "dim"), (served.mcp_url, "bold"), ("\nREST  ", "dim"), f"{served.url}/v1")
    console.print(Panel(text, title="Ostiary is up", expand=False))
    server = {"type": "http", "url": served.mcp_url, "headers": {"Authorization": f"Bearer {token}"}}
    # Outside of any frame, so that it can be pasted as it is.
    console.print("[dim]mcp.json for your agent:[/dim]")
    click.echo(json.dumps({"mcpServers": {"ostiary": server}}, indent=2))
    console.print("[dim]your own token (runs, audit, admin):[/dim]")
    click.echo(admin_token)
    for warning in cautions:
        console.print(f"[yellow]![/yellow] {warning}")
    console.print("[dim]Ctrl-C ends it.[/dim]")
