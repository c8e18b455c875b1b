"""A foreign issuer on loopback that does whatever a test wants: a real HTTP server, real keys, any token."""

import asyncio
import base64
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from anyio import fail_after
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from joserfc import jws
from joserfc.jwk import ECKey, OKPKey, RSAKey

from gateway.adapters.identity import (
    LocalIdentity,
    LocalIssuer,
    Trust,
)
from gateway.adapters.identity.foreign import ForeignTrust
from gateway.adapters.identity.jwks import Address, IssuerKeys
from gateway.adapters.identity.oidc import ForeignIdentity, Identities
from gateway.core.call import Call, Channel, Live, Principal
from gateway.core.canonical import Json, arguments
from gateway.core.errors import Unauthenticated
from tests.clock import StepClock

AUDIENCE = "https://gateway.test/mcp"
LOCAL = Trust("urn:ostiary:local", frozenset({"ostiary"}))
# Making an RSA key takes a while, so all tests use the same two.
FIRST, SECOND = (RSAKey.import_key(generate_private_key(65537, 2048)) for _ in range(2))
Key = RSAKey | ECKey | OKPKey


@dataclass(slots=True)
class Issuer:
    """What the server answers.

    Attributes:
        url: the issuer's identifier.
        clock: tokens are issued by.
        keys: its key set, as (key id, key).
        metadata: members that replace those of its metadata; None = there is none.
        broken: how its key set fails; None = it does not.
        asked: how often the key set was fetched.
        gate: while it is cleared, the key set is not answered.
    """

    url: str
    clock: StepClock
    keys: list[tuple[str, Key]]
    metadata: dict[str, Any] | None = field(default_factory=dict)
    broken: web.Response | None = None
    asked: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def claims(self, **more: Any) -> dict[str, Any]:
        """Good claims of an agent; ``more`` replaces members, and a member that is None is left out."""
        now_s = self.clock.now_us() // 1_000_000
        claims = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "dora",
            "client_id": "planner",
            "iat": now_s,
            "exp": now_s + 600,
            "jti": "t-1",
            "scope": "tools",
            "groups": ["finance"],
        }
        return {name: value for name, value in (claims | more).items() if value is not None}

    def token(self, header: dict[str, Any] | None = None, key: Key | None = None, **claims: Any) -> str:
        """A token signed with the first key; ``header`` and ``claims`` replace members."""
        kid, own = self.keys[0]
        head = {"alg": "RS256", "typ": "at+jwt", "kid": kid} | (header or {})
        payload = json.dumps(self.claims(**claims)).encode()
        return signed({name: value for name, value in head.items() if value is not None}, payload, key or own)

    async def metadata_page(self, _: web.Request) -> web.Response:
        """OpenID Connect Discovery."""
        if self.metadata is None:
            return web.Response(status=404)
        return web.json_response({"issuer": self.url, "jwks_uri": f"{self.url}/keys"} | self.metadata)

    async def keys_page(self, _: web.Request) -> web.Response:
        """The key set."""
        self.asked += 1
        await self.gate.wait()
        if self.broken is not None:
            return web.Response(status=self.broken.status, body=self.broken.body, headers=self.broken.headers)
        return web.json_response({"keys": [key.as_dict(private=False) | {"kid": kid} for kid, key in self.keys]})


def signed(header: dict[str, Any], payload: bytes, key: Key | bytes) -> str:
    """A compact JWS of any header, signed as RS256 where the library cannot; bytes key an HMAC with SHA-256."""
    head, body = (base64.urlsafe_b64encode(part).rstrip(b"=") for part in (json.dumps(header).encode(), payload))
    name = "Ed25519" if header["alg"] == "EdDSA" else header["alg"]
    algorithm = jws.JWSRegistry.algorithms[name if name[:2] in {"RS", "PS", "ES", "Ed"} else "RS256"]
    signature = algorithm.sign(head + b"." + body, key) if isinstance(key, Key) else _mac(head + b"." + body, key)
    return b".".join((head, body, base64.urlsafe_b64encode(signature).rstrip(b"="))).decode()


def _mac(content: bytes, key: bytes) -> bytes:
    return hmac.digest(key, content, "sha256")


@asynccontextmanager
async def issuing(clock: StepClock) -> AsyncIterator[Issuer]:
    """A running issuer."""
    application = web.Application()
    issuer = Issuer("", clock, [("k1", FIRST)])
    issuer.gate.set()
    application.router.add_get("/.well-known/openid-configuration", issuer.metadata_page)
    application.router.add_get("/keys", issuer.keys_page)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    issuer.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield issuer
    finally:
        issuer.gate.set()
        await runner.cleanup()


def session() -> AbstractAsyncContextManager[aiohttp.ClientSession]:
    """The client that issuers are asked with."""
    return aiohttp.ClientSession(trust_env=False)


@asynccontextmanager
async def trusting(issuer: Issuer, local: LocalIdentity, **trust: Any) -> AsyncIterator[Identities]:
    """The Identity port that trusts ``issuer`` beside the local one; ``trust`` replaces members."""
    keys = IssuerKeys(Address(issuer.url, None, session), issuer.clock)
    whole = {"issuer": issuer.url, "audiences": frozenset({AUDIENCE}), "prefix": "corp:"} | trust
    try:
        yield Identities(local, [ForeignIdentity(issuer.clock, ForeignTrust(**whole), keys)])
    finally:
        await keys.close()


def call_with(token: str) -> Call:
    """A call that carries ``token``."""
    return Call("id", 0, Live(token), Channel.REST, "a.b", arguments(Json({}, {})))


@dataclass(slots=True)
class World:
    """A foreign issuer, the local one, and the port that trusts both."""

    clock: StepClock
    issuer: Issuer
    local: LocalIssuer
    own: LocalIdentity
    key: Ed25519PrivateKey
    port: Identities

    async def principal(self, token: str) -> Principal:
        """Who the bearer is."""
        with fail_after(20):
            return await self.port.authenticate(call_with(token))

    def vouching(self, foreign: str) -> tuple[LocalIssuer, LocalIdentity]:
        """A local issuer that issues run tokens for persons of ``foreign``, and its verifier; the same key."""
        trust = replace(LOCAL, vouched=frozenset({foreign}))
        return LocalIssuer(self.clock, trust, self.key), LocalIdentity(self.clock, trust, [self.key.public_key()])

    async def cause(self, token: str) -> str:
        """Why the token is refused."""
        with pytest.raises(Unauthenticated) as refusal:
            await self.principal(token)
        return refusal.value.cause_code


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Time stands still."""
    clock, key = StepClock(), Ed25519PrivateKey.generate()
    own = LocalIdentity(clock, LOCAL, [key.public_key()])
    async with issuing(clock) as issuer, trusting(issuer, own, persons=frozenset({"cli"})) as port:
        yield World(clock, issuer, LocalIssuer(clock, LOCAL, key), own, key, port)
