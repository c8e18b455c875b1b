"""``ostiary reviewer``: whose keys may approve."""

import secrets
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from gateway.cli import reviewer_key
from gateway.cli.reach import Reach, reaching
from gateway.cli.screen import answer, columns, json_option, shown
from gateway.core.signing import document_hash, enrolment, enrolment_message

_LOCAL_ISSUER = "urn:ostiary:local"


@click.group()
def reviewer() -> None:
    """Make, enrol and revoke reviewers' signing keys."""


@reviewer.command()
@reviewer_key.key_option
@json_option
def keygen(key_file: Path | None) -> None:
    """Make a signing key for yourself; its public half is what gets enrolled."""
    path = key_file or reviewer_key.default_path()
    made = reviewer_key.create(path)
    document = {"key_id": made.id, "public": made.public.hex(), "file": str(path)}
    answer(document, [f"{name.ljust(6)}  {value}" for name, value in document.items()])


@reviewer.command()
@click.option("--person", required=True, help="Who holds the key; a quorum counts persons.")
@click.option("--role", multiple=True, help="What the person may approve as; again for more.")
@click.option("--public", help="Public key, hex [that of your own key].")
@click.option(
    "--account", multiple=True, metavar="USER[@ISSUER]", help="Account of the person [the person at the local issuer]."
)
@click.option("--signed-by", type=click.Path(path_type=Path), help="Key file of an enrolled reviewer.")
@reviewer_key.key_option
@reaching
def enrol(reach: Reach, key_file: Path | None, **given: Any) -> None:
    """Enrol a key. Once one is enrolled, an enrolled key must sign the next (--signed-by)."""
    public = _public(given["public"]) if given["public"] else reviewer_key.load(key_file).public
    accounts = [_account(text) for text in given["account"] or (given["person"],)]
    nonce = secrets.token_hex(32)
    body: dict[str, Any] = {
        "public": public.hex(),
        "person": given["person"],
        "roles": list(given["role"]),
        "accounts": [{"issuer": issuer, "user": user} for issuer, user in accounts],
        "nonce": nonce,
    }
    if given["signed_by"] is not None:
        signer = reviewer_key.load(given["signed_by"])
        hashed = document_hash(enrolment(public, given["person"], given["role"], accounts, nonce))
        # The signature is good at this gateway's log only.
        origin = reach.get("/v1/reviewers")["origin"]
        message = enrolment_message(origin, public.hex(), given["role"], hashed)
        body |= {"signed_by": signer.id, "signature": signer.sign(message)}
    found = reach.post("/v1/reviewers", body)
    answer(found, [f"enrolled  {shown(found['key_id'])}  {shown(found['person'])}  {', '.join(found['roles'])}"])


@reviewer.command("list")
@reaching
def list_(reach: Reach) -> None:
    """List every key that was ever enrolled."""
    found = reach.get("/v1/reviewers")
    rows = [
        (one["key_id"], one["person"], ", ".join(one["roles"]), "revoked" if one["revoked"] else "active")
        for one in found["reviewers"]
    ]
    answer(found, columns(("KEY", "PERSON", "ROLES", "STATE"), rows))


@reviewer.command()
@click.argument("key_id")
@reaching
def revoke(reach: Reach, key_id: str) -> None:
    """Let the key KEY_ID count no more, from now on."""
    found = reach.post(f"/v1/reviewers/{quote(key_id, safe='')}/revoke", {})
    answer(found, [f"revoked  {shown(found['key_id'])}  {shown(found['person'])}"])


def _account(text: str) -> tuple[str, str]:
    user, _, issuer = text.partition("@")
    return issuer or _LOCAL_ISSUER, user


def _public(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no key in hex", param_hint="--public") from None
