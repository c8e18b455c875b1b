"""REST for a person's own connections: listing, opening and closing them. No token is in any answer.

The browser comes back to a port of the person's own machine, where the command waits that sent it: it alone has the
verifier, so a code that somebody else gets hold of is worth nothing.
"""

from collections.abc import Sequence

from pydantic import Field

from gateway.core.connections import Account, Consent, Wish
from gateway.core.desk import Desk
from gateway.core.errors import Conflict, Forbidden, MalformedRequest, NotFound, Unavailable
from gateway.edge.models import Model
from gateway.edge.reply import Reply
from gateway.edge.rest.routes import Asked, Operation, shown

_LOOPBACK = r"^http://(127\.0\.0\.1|\[::1\]):[1-9][0-9]{0,4}/callback/[a-z0-9_-]{1,31}$"
_OPAQUE = r"^[A-Za-z0-9._~-]{43,128}$"


class AccountShown(Model):
    """A connection."""

    name: str
    state: str = Field(description="`open`, `broken` (connect it anew) or `none`.")
    scopes: tuple[str, ...] = ()
    since_us: int | None = None


class AccountList(Model):
    """The connections that can be opened, and how yours are."""

    connections: tuple[AccountShown, ...]


class PageGiven(Model):
    """Who waits for the browser, and where."""

    code_challenge: str = Field(pattern=r"^[A-Za-z0-9_-]{43}$", description="S256 (RFC 7636).")
    state: str = Field(pattern=_OPAQUE, description="Comes back with the code.")
    redirect_uri: str = Field(
        pattern=_LOOPBACK, description="On the person's own machine: `/callback/NAME`, the connection's own."
    )


class Page(Model):
    """Where the person says yes."""

    url: str


class ConsentGiven(Model):
    """What the browser brought."""

    code: str = Field(min_length=1, max_length=4096)
    code_verifier: str = Field(pattern=_OPAQUE)
    redirect_uri: str = Field(pattern=_LOOPBACK)
    iss: str | None = Field(None, max_length=1024, description="As in the answer (RFC 9207).")


class Closed(Model):
    """What was closed."""

    revoked: bool = Field(description="Whether the service revoked it; otherwise look into your settings there.")


class ConnectionRest:
    """Operations on a person's own connections."""

    def __init__(self, desk: Desk) -> None:
        """Work through the desk."""
        self._desk = desk

    def operations(self) -> Sequence[Operation]:
        """The table."""
        return (
            Operation(
                "GET",
                "/v1/connections",
                "listConnections",
                "The services you can connect, and your own connections.",
                self.list,
                AccountList,
                scopes=("tools", "runs"),
                persons=True,
                refusals=(Unavailable,),
            ),
            Operation(
                "POST",
                "/v1/connections/{name}/page",
                "beginConnection",
                "Where you let the gateway act for you at a service.",
                self.page,
                Page,
                scopes=("tools", "runs"),
                persons=True,
                body=PageGiven,
                refusals=(NotFound, Unavailable),
            ),
            Operation(
                "POST",
                "/v1/connections/{name}/open",
                "openConnection",
                "Keep what you agreed to: calls made for you may use it.",
                self.open,
                AccountShown,
                scopes=("tools", "runs"),
                persons=True,
                body=ConsentGiven,
                refusals=(NotFound, Conflict, Unavailable),
            ),
            Operation(
                "POST",
                "/v1/connections/{name}/close",
                "closeConnection",
                "Revoke and erase your connection.",
                self.close,
                Closed,
                scopes=("tools", "runs"),
                persons=True,
                refusals=(NotFound, Unavailable),
            ),
        )

    async def list(self, asked: Asked) -> Reply:
        """Those of who asks."""
        _own(asked)
        found = await self._desk.connections.all(asked.visit.principal)
        return shown(AccountList(connections=tuple(_shown(one) for one in found)))

    async def page(self, asked: Asked) -> Reply:
        """Where to go."""
        _own(asked)
        given: PageGiven = asked.body
        _check_place(given.redirect_uri, asked.path["name"])
        wish = Wish(given.code_challenge, given.state, given.redirect_uri)
        return shown(Page(url=await self._desk.connections.page(asked.path["name"], wish)))

    async def open(self, asked: Asked) -> Reply:
        """Keep it."""
        _own(asked)
        given: ConsentGiven = asked.body
        _check_place(given.redirect_uri, asked.path["name"])
        consent = Consent(given.code, given.code_verifier, given.redirect_uri, given.iss)
        return shown(_shown(await self._desk.connections.open(asked.visit.principal, asked.path["name"], consent)))

    async def close(self, asked: Asked) -> Reply:
        """Keep it no more."""
        _own(asked)
        return shown(Closed(revoked=await self._desk.connections.close(asked.visit.principal, asked.path["name"])))


def _own(asked: Asked) -> None:
    # Whoever holds the admin socket is the machine's operator, whose account would then be everybody's there.
    if asked.visit.operator:
        raise Forbidden("connections are a person's own: use your own token", cause_code="person")


def _check_place(redirect: str, name: str) -> None:
    # A place of its own for each service (RFC 9700 section 4.4.2.2): a code that came to another one's is not taken.
    if redirect.rpartition("/")[2] != name:
        raise MalformedRequest("redirect_uri: it must end in /callback/NAME of this connection", cause_code="redirect")


def _shown(account: Account) -> AccountShown:
    return AccountShown(name=account.name, state=str(account.state), scopes=account.scopes, since_us=account.since_us)
