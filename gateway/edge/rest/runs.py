"""REST for runs and tokens: a person opens a run with their own credential and gets the token for its agent."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from gateway.core.call import Principal, Run
from gateway.core.custody import Seen, View
from gateway.core.desk import Desk, RunRequest
from gateway.core.errors import Forbidden, InvalidArguments, NotFound, Unavailable
from gateway.core.ports import Clock
from gateway.core.records import Role, identifier
from gateway.edge import issuing
from gateway.edge.auth import Visit
from gateway.edge.models import Model
from gateway.edge.reply import Reply
from gateway.edge.rest.routes import Asked, Operation, shown

_DAY_S = 86_400
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@:+/-]{0,127}$")]
Pattern = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.*?/-]{1,160}$")]
Scope = Literal["tools", "runs", "review", "audit", "admin"]


class Budget(Model):
    """Upper bounds of a run."""

    calls: int | None = Field(None, ge=1, le=1_000_000, description="Most calls.")


class RunOpen(Model):
    """What a person asks for."""

    goal: str = Field(min_length=1, max_length=4000, description="The task in the person's words.")
    agent: Name = Field(description="The agent that may work in the run.")
    scope: list[Pattern] = Field([], max_length=100, description="Tool patterns such as `erp.*`; none = no limit.")
    budget: Budget = Budget()
    plan: list[Pattern] = Field([], max_length=100, description="Tools the person expects.")
    ttl_s: int | None = Field(
        None,
        ge=1,
        description="How long the run may last, seconds; an hour, or what is left of your own token or key, which it "
        "may not outlive. The gateway sets a bound, too.",
    )


class RunShown(Model):
    """A run."""

    id: str
    kind: str
    agent: str | None
    goal: str | None
    scope: tuple[str, ...]
    budget: dict[str, int]
    plan: tuple[str, ...]
    started_us: int
    expires_us: int


class RunOpened(Model):
    """A run and the token its agent works with."""

    run: RunShown
    token: str = Field(description="Bearer token bound to this run; give it to the agent.")
    expires_us: int


class RunEnded(Model):
    """A run that is over."""

    run_id: str
    ended: bool = True


class TokenRequest(Model):
    """A token to be issued."""

    user: Name
    agent: Name | None = None
    groups: list[Name] = Field([], max_length=64)
    scopes: list[Scope] = Field(["tools"], min_length=1)
    ttl_s: int | None = Field(
        None, ge=1, le=366 * _DAY_S, description="Life time, seconds; an hour, or what is left of your own token."
    )


class TokenIssued(Model):
    """A new token. It is shown once and kept nowhere."""

    token: str
    jti: str
    expires_us: int


class RunRest:
    """Operations on runs and tokens."""

    def __init__(self, desk: Desk, clock: Clock, issuer: str, run_max_s: int) -> None:
        """``issuer`` is the ``iss`` of the tokens the desk's issuer signs; no run lasts longer than ``run_max_s``."""
        self._desk = desk
        self._run_max_s = run_max_s
        self._clock = clock
        self._issuer = issuer

    def operations(self) -> Sequence[Operation]:
        """The table."""
        return (
            Operation(
                "POST",
                "/v1/runs",
                "openRun",
                "Open a run; only a person's own token may, and only one that may use tools itself.",
                self.open,
                RunOpened,
                scopes=("runs",),
                # The run's token uses tools on the person's behalf: nobody hands on what they do not have.
                needs=("tools",),
                persons=True,
                body=RunOpen,
                status=201,
                refusals=(Forbidden, InvalidArguments, Unavailable),
            ),
            Operation("GET", "/v1/runs/{id}", "showRun", "Show a run.", self.show, RunShown, refusals=(NotFound,)),
            Operation(
                "POST",
                "/v1/runs/{id}/end",
                "endRun",
                "End a run: by who opened it, or an administrator.",
                self.end,
                RunEnded,
                scopes=("runs", "admin"),
                persons=True,
                refusals=(NotFound, Unavailable),
            ),
            Operation(
                "POST",
                "/v1/tokens",
                "issueToken",
                "Issue a token, which may do no more than yours; who issued what to whom is recorded.",
                self.issue,
                TokenIssued,
                scopes=("admin",),
                persons=True,
                body=TokenRequest,
                status=201,
                refusals=(Forbidden, InvalidArguments, Unavailable),
            ),
        )

    async def open(self, asked: Asked) -> Reply:
        """Open a run and issue its token."""
        wish: RunOpen = asked.body
        person, life_s = asked.visit.principal, self._life_s(asked.visit, wish.ttl_s)
        budget = {} if wish.budget.calls is None else {"calls": wish.budget.calls}
        request = RunRequest(
            goal=wish.goal,
            agent=wish.agent,
            scope=tuple(wish.scope),
            budget=budget,
            plan=tuple(wish.plan),
            ttl_s=life_s,
            until_us=issuing.until_us(asked.visit),
        )
        run = await self._desk.runs.start(person, request)
        agent = Principal(
            issuer=person.issuer,
            user=person.user,
            agent=wish.agent,
            groups=person.groups,
            scopes=frozenset({"tools"}),
            auth_method=person.auth_method,
            jti=self._clock.uuid(),
            expires_us=run.expires_us,
            run=run.id,
        )
        try:
            token = self._desk.issuer.issue(agent)
        except InvalidArguments:  # more groups than fit: a run that nobody can work in is not left open
            await self._desk.runs.end(run.id, "closed")
            raise
        return shown(RunOpened(run=_shown(run), token=token, expires_us=run.expires_us), 201)

    def _life_s(self, visit: Visit, asked_s: int | None) -> int:
        # Its token is a credential made of the opener's: whoever finds that one has no more of it than it had left.
        if asked_s is not None and asked_s > self._run_max_s:
            raise InvalidArguments(f"ttl_s: no run may last longer than {self._run_max_s} seconds", cause_code="ttl")
        now_us = self._clock.now_us()
        life_s = min(self._run_max_s, issuing.life_s(visit, asked_s, now_us, issuing.RUN))
        issuing.check_end(visit, now_us + life_s * 1_000_000, issuing.RUN)
        return life_s

    async def show(self, asked: Asked) -> Reply:
        """A run the caller may see."""
        run, principal = await self._visible(asked), asked.visit.principal
        if run.goal is not None and is_viewer(principal):
            await self._desk.views.record(principal, Seen(View.RUN, (Role.RUN,), {"run": identifier(run.id)}))
        return shown(_shown(run))

    async def end(self, asked: Asked) -> Reply:
        """End a run the caller may see."""
        run = await self._visible(asked)
        await self._desk.runs.end(run.id, "closed")
        return shown(RunEnded(run_id=run.id))

    async def issue(self, asked: Asked) -> Reply:
        """Issue a token: by the operator for anybody, by others for themselves and no more than they have."""
        wish, now_us = asked.body, self._clock.now_us()
        life_s = issuing.life_s(asked.visit, wish.ttl_s, now_us)
        principal = Principal(
            issuer=self._issuer,
            user=wish.user,
            agent=wish.agent,
            groups=frozenset(wish.groups),
            scopes=frozenset(wish.scopes),
            auth_method="local",
            jti=self._clock.uuid(),
            expires_us=now_us + life_s * 1_000_000,
        )
        issuing.check(asked.visit, principal)
        details = {**wish.model_dump(mode="json"), "ttl_s": life_s, "jti": principal.jti}
        await self._desk.changes.record(asked.visit.principal, "token.issued", details)
        token = self._desk.issuer.issue(principal)
        return shown(TokenIssued(token=token, jti=principal.jti, expires_us=principal.expires_us), 201)

    async def _visible(self, asked: Asked) -> Run:
        run = await self._desk.runs.show(asked.path["id"])
        if run is None or not may_see(asked.visit.principal, run):
            raise NotFound("no such run", cause_code="run")
        return run


def may_see(principal: Principal, run: Run) -> bool:
    """Whether ``principal`` may know of ``run``: its agent, who opened it, auditors and administrators."""
    if principal.scopes & {"audit", "admin"} or principal.key == run.principal_key:
        return principal.run in {None, run.id}
    own = f"{principal.issuer}|{principal.user}|"
    return principal.agent is None and principal.user == run.opened_by and run.principal_key.startswith(own)


def is_viewer(principal: Principal) -> bool:
    """Whether what ``principal`` is shown of payloads is recorded: all but what an agent reads of its own.

    An agent may have been given an auditor's scope, and then reads what others did.
    """
    is_person, sees_all = principal.agent is None, principal.scopes & {"audit", "admin"}
    return principal.run is None and bool(is_person or sees_all)


def _shown(run: Run) -> RunShown:
    return RunShown(
        id=run.id,
        kind=run.kind,
        agent=run.principal_key.rpartition("|")[2] or None,
        goal=run.goal,
        scope=run.scope,
        budget=dict(run.budget),
        plan=run.plan,
        started_us=run.started_us,
        expires_us=run.expires_us,
    )
