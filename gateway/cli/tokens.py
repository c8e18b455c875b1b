"""``ostiary token``: tokens from the issuer's key file; no gateway need run."""

from pathlib import Path
from typing import Any

import click

from gateway.adapters.identity import SCOPES, Grant
from gateway.cli import home
from gateway.cli.reach import state_option
from gateway.cli.screen import Misconfigured, answer, json_option
from gateway.core.errors import InvalidArguments


@click.group()
def token() -> None:
    """Issue tokens for persons and agents."""


@token.command()
@click.option("--user", required=True, help="Person or system of record the token stands for.")
@click.option("--agent", help="Agent that acts for the user; without it the token is the person's own.")
@click.option("--scope", multiple=True, help=f"What it may do: {', '.join(sorted(SCOPES))} (again for more) [tools].")
@click.option("--group", multiple=True, help="Group of the user; again for more.")
@click.option("--ttl", type=click.IntRange(1), default=3600, show_default=True, help="Life time, seconds.")
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file, instead of --state.")
@state_option
@json_option
def issue(**given: Any) -> None:
    """Print a signed token."""
    scopes = frozenset(word for text in given["scope"] for word in text.replace(",", " ").split()) or {"tools"}
    grant = Grant(
        user=given["user"],
        agent=given["agent"],
        scopes=frozenset(scopes),
        groups=frozenset(given["group"]),
        ttl_s=given["ttl"],
    )
    settings = home.read(given["config"]) if given["config"] else home.of_state(given["state"])
    issuer = home.issuer(settings)
    try:
        principal = issuer.principal(grant)
    except InvalidArguments as error:
        raise Misconfigured(error.detail) from None
    text = issuer.issue(principal)
    document = {
        "token": text,
        "jti": principal.jti,
        "user": principal.user,
        "agent": principal.agent,
        "scope": " ".join(sorted(principal.scopes)),
        "expires_us": principal.expires_us,
    }
    answer(document, [text])
