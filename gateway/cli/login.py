"""``ostiary login``: a person's own token, from an issuer the gateway trusts."""

import click

from gateway.cli import device, logins
from gateway.cli.screen import Failed, answer, json_option, shown


@click.command()
@click.option("--url", envvar="OSTIARY_URL", show_envvar=True, required=True, help="Base URL of the gateway.")
@click.option("--issuer", help="Which of its issuers, where it trusts several.")
@click.option("--client-id", default="ostiary-cli", show_default=True, help="This command's name at the issuer.")
@click.option("--scope", multiple=True, help="Scope to ask for; again for more [all the gateway takes].")
@json_option
def login(url: str, issuer: str | None, client_id: str, scope: tuple[str, ...]) -> None:
    """Log in with your browser, for later commands with the same --url."""
    offered = device.offer(url)
    wish = device.Wish(_chosen(offered, issuer), client_id, " ".join(scope or offered.scopes), offered.resource)
    said = device.log_in(wish, _show)
    path = logins.keep(url, said.token, said.lives_s)
    document = {"url": url, "issuer": wish.issuer, "expires_in": int(said.lives_s), "file": str(path)}
    answer(document, [f"logged in for {int(said.lives_s)} s; `ostiary run open --url {shown(url)} ...` uses it"])


def _chosen(offered: device.Offer, issuer: str | None) -> str:
    if issuer is None and len(offered.issuers) == 1:
        return offered.issuers[0]
    if issuer in offered.issuers:
        return issuer
    listed = ", ".join(map(shown, offered.issuers))
    raise Failed(f"the gateway trusts {listed}", "name one of them with --issuer")


def _show(where: str, code: str) -> None:
    click.echo(f"Open {shown(where)} and confirm the code {shown(code)}", err=True)
