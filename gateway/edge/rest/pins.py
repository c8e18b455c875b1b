"""REST for pins: which tools are approved, what their upstreams say now, and a person's word on it."""

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from gateway.core.desk import Desk
from gateway.core.errors import Conflict, Forbidden, InvalidArguments, NotFound, Unavailable
from gateway.core.pinning import Cause, Consent, Described, Dossier, PinState
from gateway.edge.models import Model
from gateway.edge.reply import Reply
from gateway.edge.rest.approvals import KeyId, SignatureText
from gateway.edge.rest.reviewers import Hex32
from gateway.edge.rest.routes import Asked, Operation, shown


class PinGiven(Model):
    """A person's word that a tool may be used as it is described now."""

    digest: Hex32 = Field(description="What was shown; refused where the upstream says something else by now.")
    key_id: KeyId | None = Field(None, description="An enrolled key; needed where governance.pin_roles is set.")
    signature: SignatureText | None = None


class DescribedShown(Model):
    """A tool as its upstream describes it."""

    endpoint: str
    digest: str
    definition: dict[str, Any]


class SuspicionShown(Model):
    """Something odd about what the upstream says now."""

    rule: str
    path: str = Field(description="JSON pointer of the text within the definition.")
    excerpt: str = Field(description="Hidden characters as escapes.")


class PinHead(Model):
    """A tool's pin in short."""

    tool: str
    state: PinState
    cause: Cause | None = None
    approved_digest: str | None = None
    live_digest: str | None = None


class PinShown(PinHead):
    """A tool's pin."""

    approved: DescribedShown | None = None
    live: DescribedShown | None = None
    suspicions: tuple[SuspicionShown, ...] = ()
    origin: str = Field(description="The log's name in what a reviewer signs.")
    roles: tuple[str, ...] = Field(description="One of these the signer must have; none = no signature is needed.")


class PinList(Model):
    """Every tool of an MCP upstream."""

    pins: tuple[PinHead, ...]


class PinRest:
    """Operations on pins."""

    def __init__(self, desk: Desk) -> None:
        """Work through the desk."""
        self._pins = desk.pins

    def operations(self) -> Sequence[Operation]:
        """The table."""
        return (
            Operation(
                "GET",
                "/v1/pins",
                "listPins",
                "Every tool of an MCP upstream, and whether it is approved.",
                self.list,
                PinList,
                scopes=("admin", "audit"),
                persons=True,
            ),
            Operation(
                "GET",
                "/v1/tools/{tool:path}/pin",
                "showPin",
                "What was approved of a tool, what its upstream says now, and what is odd about that.",
                self.show,
                PinShown,
                scopes=("admin", "audit"),
                persons=True,
                refusals=(NotFound,),
            ),
            Operation(
                "POST",
                "/v1/tools/{tool:path}/pin",
                "pinTool",
                "Approve exactly what was shown of a tool; it can be used from then on.",
                self.pin,
                PinShown,
                scopes=("admin",),
                persons=True,
                body=PinGiven,
                refusals=(NotFound, Conflict, Forbidden, InvalidArguments, Unavailable),
            ),
        )

    async def list(self, asked: Asked) -> Reply:  # noqa: ARG002 - each operation takes the request
        """All tools."""
        return shown(PinList(pins=tuple(PinHead(**_head(one)) for one in self._pins.all())))

    async def show(self, asked: Asked) -> Reply:
        """One tool."""
        return self._shown(self._pins.show(asked.path["tool"]))

    async def pin(self, asked: Asked) -> Reply:
        """Approve one."""
        given: PinGiven = asked.body
        signature = None if given.signature is None else bytes.fromhex(given.signature)
        consent = Consent(given.digest, given.key_id, signature)
        return self._shown(await self._pins.pin(asked.visit.principal, asked.path["tool"], consent))

    def _shown(self, found: Dossier) -> Reply:
        odd = tuple(SuspicionShown(rule=one.rule, path=one.path, excerpt=one.excerpt) for one in found.suspicions)
        return shown(
            PinShown(
                **_head(found),
                approved=_described(found.approved),
                live=_described(found.live),
                suspicions=odd,
                origin=self._pins.origin,
                roles=self._pins.roles,
            )
        )


def _head(found: Dossier) -> dict[str, Any]:
    return {
        "tool": found.tool,
        "state": found.state,
        "cause": found.cause,
        "approved_digest": None if found.approved is None else found.approved.digest,
        "live_digest": None if found.live is None else found.live.digest,
    }


def _described(found: Described | None) -> DescribedShown | None:
    if found is None:
        return None
    return DescribedShown(endpoint=found.endpoint, digest=found.digest, definition=dict(found.definition))
