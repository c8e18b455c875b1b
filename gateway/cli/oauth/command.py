"""``ostiary upstream oauth``."""

import asyncio
from typing import Any, Final

import click

from gateway.adapters.connections import discovering
from gateway.adapters.connections.discovering import Applicant, Membership
from gateway.cli.client import housing
from gateway.cli.client.adopting import fitting
from gateway.cli.client.agreeing import changing_options
from gateway.cli.oauth import settling
from gateway.cli.oauth.dialling import GuardedFetch
from gateway.cli.oauth.settling import Discovered, Wanted
from gateway.cli.screen import Failed, Misconfigured, answer, shown
from gateway.core.errors import GatewayError

_SAYS: Final = "nothing was written"
_CORRECT: Final = "ask whoever runs the server, or write [connections.*] by hand (docs/credentials.md)"


@click.command()
@click.argument("name", metavar="NAME")
@click.argument("url", metavar="URL")
@click.option("--issuer", help="Which authorization server, where the MCP server names several.")
@click.option("--client-id", help="The gateway's client id, where one was made there by hand.")
@click.option("--client-secret-env", metavar="VARIABLE", help="Environment variable with its secret, if it has one.")
@click.option("--client-auth", type=click.Choice(["basic", "body"]), default="basic", help="How its secret is sent.")
@click.option("--client-document", metavar="URL", help="Where you publish the document that describes the gateway.")
@click.option("--scope", "scopes", multiple=True, help="Ask persons for this one instead; again for more.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port of `ostiary connect`, where it must be registered.")
@click.option("--discovery", metavar="NAME", help="Name of the [credentials.*] section that tools are listed with.")
@click.option("--allow-network", multiple=True, metavar="CIDR", help="A private network that may be dialled.")
@changing_options
def oauth(name: str, url: str, **given: Any) -> None:
    """Add an MCP server at which persons have accounts.

    The server says who gives tokens for it. The gateway becomes a client there: by --client-id, by the address of a
    document, or by registering. What comes of it is shown first, and then written into the settings for good: nothing
    that the server says later changes whom tokens are sent to.
    """
    if fitting(name) != name or name == "gateway":
        raise Misconfigured(
            f"{shown(name)} cannot name an upstream", "small letters, digits, single - and _, at most 31, not `gateway`"
        )
    if given["client_id"] is None and given["client_secret_env"] is not None:
        raise click.UsageError("--client-secret-env is the secret of --client-id: name both")
    if given["client_id"] is not None and given["client_document"] is not None:
        raise click.UsageError("--client-id and --client-document name two clients: take one")
    try:
        fetch = GuardedFetch(given["allow_network"])
    except ValueError as error:
        raise Misconfigured(f"--allow-network: {error}", "give networks in CIDR form, such as 10.1.0.0/16") from None
    house = housing.find(given["config"], given["state"])
    wanted = Wanted(name, url, house, given["discovery"], given["client_secret_env"])
    try:
        asyncio.run(_carried_out(wanted, fetch, given))
    except GatewayError as error:
        raise Failed(f"{shown(error.detail)}; {_SAYS}", _CORRECT) from None


async def _carried_out(wanted: Wanted, fetch: GuardedFetch, given: dict[str, Any]) -> None:
    what = await _discovered(wanted.url, fetch, given)
    member = _given(what, given)
    # Whether the settings can take it is known before anything is done elsewhere.
    settling.changes(wanted, what, member or Membership("registered", "registered", "basic"))
    for line in _lines(wanted, what, member, given):
        click.echo(line, err=not given["dry_run"])
    if given["dry_run"]:
        answer({**_document(wanted, what, member), "done": False}, ["nothing was changed"])
        return
    if not given["yes"] and not click.confirm("Do that?", err=True):
        raise Failed("nothing was changed", "--yes does not ask")
    is_new, member = member is None, member or await _registered(wanted, what, given, fetch)
    try:
        backup = settling.carry_out(wanted, settling.changes(wanted, what, member))
    except Failed as failure:
        left = f"; the client {shown(member.id)} was registered at {shown(what.found.issuer)}" if is_new else ""
        raise type(failure)(f"{failure.message}{left}", failure.fix) from None
    answer(
        {**_document(wanted, what, member), "done": True, "backup": str(backup)},
        [
            f"done; copies of the files as they were: {backup}",
            f"`ostiary vault setup` makes the place {wanted.name}-accounts; start the gateway anew; then each person:",
            f"ostiary connect {wanted.name}" + (f" --port {given['port']}" if given["port"] else ""),
        ],
    )


async def _registered(wanted: Wanted, what: Discovered, given: dict[str, Any], fetch: GuardedFetch) -> Membership:
    applicant = Applicant("Ostiary", _redirect(wanted.name, given["port"]), what.scopes)
    return await discovering.registered(what.found, applicant, fetch)


async def _discovered(url: str, fetch: GuardedFetch, given: dict[str, Any]) -> Discovered:
    server = await discovering.protected(url, fetch)
    issuer = given["issuer"] or server.issuers[0]
    if issuer not in server.issuers or (given["issuer"] is None and len(server.issuers) > 1):
        raise Misconfigured(
            f"the server names {shown(', '.join(server.issuers))}; {_SAYS}", "say which one by --issuer"
        )
    found = await discovering.published(issuer, fetch)
    return Discovered(server, found, given["scopes"] or discovering.asked(server.scopes, found))


def _given(what: Discovered, given: dict[str, Any]) -> Membership | None:
    """The client that the operator has, or None where it is to be registered."""
    if given["client_id"] is not None:
        has_secret = given["client_secret_env"] is not None
        return Membership(given["client_id"], auth=given["client_auth"] if has_secret else None)
    if given["client_document"] is not None:
        if not what.found.takes_documents:
            raise Misconfigured(f"{shown(what.found.issuer)} takes no such documents", "leave --client-document out")
        return Membership(given["client_document"])
    return None


def _redirect(name: str, port: int | None) -> str:
    return f"http://127.0.0.1{'' if port is None else f':{port}'}/callback/{name}"


def _document(wanted: Wanted, what: Discovered, member: Membership | None) -> dict[str, Any]:
    return {
        "upstream": wanted.name,
        "url": wanted.url,
        "issuer": what.found.issuer,
        "resource": what.protected.resource,
        "scopes": list(what.scopes),
        "client_id": None if member is None else member.id,
        "config": str(wanted.house.config),
    }


def _lines(wanted: Wanted, what: Discovered, member: Membership | None, given: dict[str, Any]) -> list[str]:
    redirect = _redirect(wanted.name, given["port"])
    made = "registered there" if member is None else f"the client {shown(member.id)}"
    said = [
        f"{shown(wanted.url)} -> upstream {wanted.name}",
        f"  tokens are given by   {shown(what.found.issuer)}",
        f"  persons say yes at    {shown(what.found.authorization)}",
        f"  tokens are asked at   {shown(what.found.token)}",
        f"  for the resource      {shown(what.protected.resource)}",
        f"  persons are asked for {shown(' '.join(what.scopes)) or 'what the server takes for granted'}",
        f"  the gateway is        {made}, redirect URI {redirect}",
    ]
    said += [] if what.revokes else ["  access tokens cannot be ended there: they last until their time is over"]
    said += [] if wanted.discovery else ["  without --discovery its tools are listed only if it lists them for nobody"]
    if given["client_document"]:
        said.append(f"  publish there: client_id {shown(given['client_document'])}, redirect_uris [{redirect}]")
    return said
