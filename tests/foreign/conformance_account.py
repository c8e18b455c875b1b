"""The way of a person's account, as the conformance suite sees it; ``conformance_client.py`` takes it for ``auth/``.

What ``ostiary upstream oauth`` finds out, the gateway's client of the authorization server, and the connector with the
token that comes of it. What stands between them in the product (settings, the vault, the browser) is a few lines here.
"""

import base64
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from connectors.mcp.http import HttpConnector, HttpOptions
from connectors.mcp.pool import Pool
from gateway.adapters.clock import SystemClock
from gateway.adapters.connections import Client, OAuthServer, discovering
from gateway.adapters.connections.discovering import Applicant, Fetch, Membership
from gateway.adapters.connections.metadata import Metadata
from gateway.adapters.connections.server import Reach
from gateway.cli.oauth.dialling import GuardedFetch
from gateway.core.connections import Consent, Granted, Wish
from gateway.core.errors import ToolFailed, Unavailable
from gateway.core.tool import ToolLimits
from gateway.parts import clients
from tests.evidence import lease, make_tool

DOCUMENT = "https://conformance-test.local/client-metadata.json"
REDIRECT = "http://127.0.0.1:8400/callback/suite"
NEAR = ("127.0.0.0/8", "::1/128")
# All scenarios run at once, on however slow a machine.
PATIENCE_S = 120.0
PATIENT = ToolLimits(timeout_s=3 * PATIENCE_S)


@dataclass(frozen=True)
class Link:
    """What stands in the settings."""

    server: OAuthServer
    scopes: tuple[str, ...]


async def member(found: Metadata, scopes: tuple[str, ...], given: Mapping[str, Any], fetch: Fetch) -> Membership:
    """The gateway there, as its operator would have it."""
    if "client_secret" in given:
        return Membership(given["client_id"], given["client_secret"], "basic")
    if found.takes_documents:
        return Membership(DOCUMENT)
    return await discovering.registered(found, Applicant("Ostiary", REDIRECT, scopes), fetch)


async def agreed(server: OAuthServer, scopes: tuple[str, ...]) -> Granted:
    """A person says yes; what the browser brings back is redeemed."""
    verifier, state = secrets.token_urlsafe(64), secrets.token_urlsafe(32)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    async with httpx.AsyncClient(timeout=PATIENCE_S) as browser:
        answer = await browser.get(await server.page(Wish(challenge, state, REDIRECT), scopes))
    where = urlsplit(answer.headers["location"])
    said: dict[str, Any] = {name: values[0] for name, values in parse_qs(where.query).items()}
    assert where._replace(query="").geturl() == REDIRECT
    assert said["state"] == state
    return await server.redeem(Consent(said["code"], verifier, REDIRECT, said.get("iss")))


async def connected(url: str, given: Mapping[str, Any]) -> None:
    """All the way from the address to calls; ``given``: the client that the suite has made by hand, if any.

    Where a call fails, its operator does something about it, once. Nobody takes its token any more: all of it again.
    The server wants more scopes: they are added to those of the connection, and the person connects again.
    """
    fetch, wanted = GuardedFetch(NEAR, PATIENCE_S), list[str]()
    link = await found_out(url, given, fetch)
    try:
        await used(url, link, wanted)
    except (ToolFailed, Unavailable) as error:
        if error.cause_code == "http_401":
            await used(url, await found_out(url, given, fetch), wanted)
        elif wanted:
            await used(url, replace(link, scopes=(*link.scopes, *wanted)), wanted)
        else:
            raise


async def found_out(url: str, given: Mapping[str, Any], fetch: Fetch) -> Link:
    """As ``ostiary upstream oauth`` does."""
    wants = await discovering.protected(url, fetch)
    found = await discovering.published(wants.issuers[0], fetch)
    scopes = discovering.asked(wants.scopes, found)
    own = await member(found, scopes, given, fetch)
    client = Client(own.id, None if own.auth is None else lambda: own.secret or "", own.auth == "body", wants.resource)
    reach = Reach(clients.session("suite", None), SystemClock(), PATIENCE_S)
    return Link(OAuthServer(found.issuer, None, client, reach), scopes)


async def used(url: str, link: Link, wanted: list[str]) -> None:
    """A person connects; then what is listed is called, each once."""
    granted = await agreed(link.server, link.scopes)
    bearer = {"authorization": f"Bearer {granted.access}"}
    options = HttpOptions(credential=lambda: bearer, setup_timeout_s=PATIENCE_S, wanting=wanted.extend)
    async with Pool() as pool, HttpConnector(url, pool, options) as connector:
        for item in await connector.discover():
            await connector.invoke(lease(make_tool(item["name"], definition=item, limits=PATIENT), {}, bearer))
