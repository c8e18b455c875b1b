"""REST for API keys: made for a user, shown once, listed without their secret, revoked."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from gateway.core.api_keys import AUTH_METHOD, ApiKey, KeyWish
from gateway.core.call import Principal
from gateway.core.desk import Desk
from gateway.core.errors import Conflict, Forbidden, InvalidArguments, NotFound, Unavailable
from gateway.core.ports import Clock
from gateway.edge import issuing
from gateway.edge.models import Model
from gateway.edge.reply import Reply
from gateway.edge.rest.routes import Asked, Operation, shown
from gateway.edge.rest.runs import Name

_MAX_TTL_S = 366 * 86_400


class ApiKeyRequest(Model):
    """A key to be made."""

    name: Name = Field(description="What people call it.")
    user: Name = Field(description="Person or system of record it stands for.")
    agent: Name | None = Field(None, description="Agent that acts for the user; without it, the person's own.")
    groups: list[Name] = Field([], max_length=256)
    scopes: list[Literal["tools", "runs", "review", "audit", "admin"]] = Field(
        ["tools"], min_length=1, max_length=5, description="What it may do; no more than whoever makes it."
    )
    ttl_s: int | None = Field(
        None, ge=1, le=_MAX_TTL_S, description="Life time, seconds; 90 days, or what is left of your own token."
    )


class ApiKeyShown(Model):
    """A key without its secret."""

    id: str
    name: str
    user: str
    agent: str | None = None
    groups: tuple[str, ...]
    scopes: tuple[str, ...]
    created_us: int
    expires_us: int
    revoked: bool
    used_day: int | None = Field(None, description="Last day it was used, days since the epoch.")


class ApiKeyMade(ApiKeyShown):
    """A new key."""

    key: str = Field(description="The key itself; it is not kept and never shown again.")


class ApiKeyList(Model):
    """All keys."""

    keys: tuple[ApiKeyShown, ...]


class ApiKeyRest:
    """Operations on API keys."""

    def __init__(self, desk: Desk, clock: Clock, issuer: str) -> None:
        """``issuer`` vouches for who comes with a key."""
        self._desk = desk
        self._clock = clock
        self._issuer = issuer

    def operations(self) -> Sequence[Operation]:
        """The table."""
        return (
            Operation(
                "GET",
                "/v1/api-keys",
                "listApiKeys",
                "Every API key, without its secret.",
                self.list,
                ApiKeyList,
                scopes=("admin", "audit"),
                persons=True,
            ),
            Operation(
                "POST",
                "/v1/api-keys",
                "createApiKey",
                "Make an API key, which may do no more than your token; it can be read in the answer only.",
                self.create,
                ApiKeyMade,
                scopes=("admin",),
                persons=True,
                body=ApiKeyRequest,
                status=201,
                refusals=(Conflict, Forbidden, InvalidArguments, Unavailable),
            ),
            Operation(
                "POST",
                "/v1/api-keys/{key}/revoke",
                "revokeApiKey",
                "Let an API key count no more, from now on.",
                self.revoke,
                ApiKeyShown,
                scopes=("admin",),
                persons=True,
                refusals=(NotFound, Conflict, Unavailable),
            ),
        )

    async def list(self, asked: Asked) -> Reply:  # noqa: ARG002 - each operation takes the request
        """All keys."""
        return shown(ApiKeyList(keys=tuple(ApiKeyShown(**_members(key)) for key in self._desk.api_keys.all())))

    async def create(self, asked: Asked) -> Reply:
        """Make a key: by the operator for anybody, by others for themselves and no more than they have."""
        given: ApiKeyRequest = asked.body
        wish = KeyWish(
            name=given.name,
            user=given.user,
            agent=given.agent,
            groups=frozenset(given.groups),
            scopes=frozenset(given.scopes),
            ttl_s=issuing.life_s(asked.visit, given.ttl_s, self._clock.now_us(), issuing.KEY),
            until_us=issuing.until_us(asked.visit),
        )
        issuing.check(asked.visit, self._principal(wish), issuing.KEY)
        key, text = await self._desk.api_keys.create(asked.visit.principal, wish)
        return shown(ApiKeyMade(**_members(key), key=text), 201)

    def _principal(self, wish: KeyWish) -> Principal:
        return Principal(
            issuer=self._issuer,
            user=wish.user,
            agent=wish.agent,
            groups=wish.groups,
            scopes=wish.scopes,
            auth_method=AUTH_METHOD,
            jti="",
            expires_us=replace(wish, until_us=None).end_us(self._clock.now_us()),
        )

    async def revoke(self, asked: Asked) -> Reply:
        """Revoke a key."""
        found = await self._desk.api_keys.revoke(asked.visit.principal, asked.path["key"])
        return shown(ApiKeyShown(**_members(found)))


def _members(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "user": key.user,
        "agent": key.agent,
        "groups": tuple(sorted(key.groups)),
        "scopes": tuple(sorted(key.scopes)),
        "created_us": key.created_us,
        "expires_us": key.expires_us,
        "revoked": key.revoked,
        "used_day": key.used_day,
    }
