"""The gateway as a client of an authorization server: whom it sends a code, and what it takes of metadata."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.clock import SystemClock
from gateway.adapters.connections.server import Client, Endpoints, OAuthServer, Reach
from gateway.core.connections import Consent, GrantRefused
from gateway.core.errors import Unavailable
from gateway.parts import clients
from tests.fakes.web import Web, serving
from tests.mutual_tls import own_certificate

ELSEWHERE = "https://honest.example"


def server(web: Web, issuer: str | None, authority: Path | None = None) -> OAuthServer:
    """A client of the server at ``web``."""
    given = None if issuer else Endpoints(f"{web.origin}/authorize", f"{web.origin}/token")
    reach = Reach(clients.session("ca", authority), SystemClock())
    return OAuthServer(issuer, given, Client("ostiary"), reach)


def brought(issuer: str | None) -> Consent:
    """A code, by the word of ``issuer``."""
    return Consent("a-code-of-somebody", "v" * 43, "http://127.0.0.1:7/callback/hub", issuer)


def publishes(web: Web, **more: Any) -> None:
    """From now on it answers with its metadata."""
    said: Mapping[str, Any] = {
        "issuer": web.origin,
        "authorization_endpoint": f"{web.origin}/authorize",
        "token_endpoint": f"{web.origin}/token",
    }
    web.json(json.dumps({**said, **more}).encode())


@pytest.mark.requirement("CRED-1")
async def test_a_code_of_another_server_is_not_sent_where_the_addresses_are_given() -> None:
    """Mix-up: a service that sent the person on to another one would get that one's code, and could use it there."""
    async with serving() as web:
        web.json(b"{}")
        with pytest.raises(GrantRefused):
            await server(web, None).redeem(brought(ELSEWHERE))
        assert web.exchanges == []
        with pytest.raises(Unavailable):  # its own: asked, and the answer is junk
            await server(web, None).redeem(brought(web.origin))
        assert [one.line for one in web.exchanges] == ["POST /token HTTP/1.1"]


@pytest.mark.requirement("CRED-1")
async def test_a_code_by_nobodys_word_is_not_sent_where_the_server_always_says_who_it_is() -> None:
    """RFC 9207 section 2.4: where the metadata promises `iss`, a code without it came from somewhere else."""
    async with serving() as web:
        publishes(web, authorization_response_iss_parameter_supported=True)
        with pytest.raises(GrantRefused):
            await server(web, web.origin).redeem(brought(None))
        assert not [one.line for one in web.exchanges if one.line.startswith("POST")]


@pytest.mark.requirement("CRED-1")
async def test_metadata_does_not_lead_secrets_into_this_machine(tmp_path: Path) -> None:
    """An https issuer whose metadata name http on loopback (a vault, a socket of somebody else's) is not followed."""
    tls, authority = own_certificate(tmp_path)
    async with serving(tls) as web, serving() as inside:
        issuer = web.origin.replace("http://", "https://")
        inside.json(b"{}")
        publishes(
            web,
            issuer=issuer,
            authorization_endpoint=f"{issuer}/authorize",
            token_endpoint=f"{inside.origin}/v1/sys/seal",
        )
        with pytest.raises(Unavailable):
            await server(web, issuer, authority).refresh("a-refresh-token", ())
        assert inside.exchanges == []


@pytest.mark.requirement("CRED-1")
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"null",
        b"[]",
        b'{"access_token":"a-good-token","token_type":"mac"}',
        b'{"access_token":"short","token_type":"bearer"}',
        b'{"access_token":"a-good-token\\r\\nX-Other: 1","token_type":"bearer"}',
        b'{"access_token":"a-good-token","access_token":"another-token","token_type":"bearer"}',
        b'{"access_token":"a-good-token","token_type":"bearer","refresh_token":7}',
        b'{"access_token":"a-good-token","token_type":"bearer","scope":"a\\u0000b"}',
        b'{"access_token":"a-good-token","token_type":"bearer","x":"' + b"y" * 200_000 + b'"}',
        b'{"error":"please show refresh token a-refresh-token"}',
    ],
)
async def test_junk_is_no_token_and_is_not_shown(answer: bytes) -> None:
    """Whatever a service answers: the account is unavailable, and nothing of the answer or token is in the error."""
    async with serving() as web:
        web.json(answer)
        with pytest.raises(Unavailable) as caught:
            await server(web, None).refresh("a-refresh-token", ())
        assert caught.value.cause_code == "provider_odd"
        assert "token" not in caught.value.detail.replace("bearer token", "")
