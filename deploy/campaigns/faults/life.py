"""A gateway's life in a run: composed as in production, its ports watched, called by several callers at once."""

import asyncio
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from deploy.campaigns.faults import babbler, peer
from deploy.campaigns.faults.client import URL, Callers, Visitor
from deploy.campaigns.faults.plan import Fault, Plan, Point
from deploy.campaigns.faults.probes import Watch, watched
from deploy.campaigns.faults.strikes import GARBLE, Scene
from gateway import app
from gateway.adapters.limiter import MemoryLimits
from gateway.adapters.rego import layers
from gateway.adapters.rego.engine import EngineSettings, RegoEngine
from gateway.core.call import Call, Principal
from gateway.core.desk import Desk, RunRequest
from gateway.core.ports import Ports
from gateway.edge import asgi
from gateway.settings import GatewaySettings
from gateway.settings import file as settings_file

AGENT: Final = "clerk"
Spoil = Callable[[Ports], Ports]
_CALLS_S: Final = 20.0
_HOUR_US: Final = 3_600_000_000


class Hung(Exception):
    """Calls that did not end."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a run plays.

    Attributes:
        folder: with its configuration.
        upstream: process id of the upstream.
        control: the upstream's control pipe, to write to.
        answers: pipe that takes what callers were told, one JSON object a line.
        spoil: what to make of the ports before they are watched; a gateway that is not broken on purpose leaves them.
    """

    plan: Plan
    folder: Path
    upstream: int
    control: int
    answers: int
    spoil: Spoil

    def report(self, line: Mapping[str, Any]) -> None:
        """Say something to the world outside, which hears it though this process should die at once."""
        os.write(self.answers, json.dumps(line).encode() + b"\n")


def live(stage: Stage) -> None:
    """Live in this process."""
    (stage.folder / peer.GATEWAY_PID).write_text(str(os.getpid()), "ascii")
    asyncio.run(_live(stage))


async def _live(stage: Stage) -> None:
    chosen = settings_file.load(stage.folder / "gateway.toml")
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(app.opened(chosen, URL))
        ports = gateway.parts.ports
        if stage.plan.fault is Fault.POLICY_GARBAGE:
            ports = replace(ports, policy=await stack.enter_async_context(_babbling(stage, chosen)))
        play = _Play(stage)
        seen = watched(stage.spoil(ports), Watch(play.passed))
        door = asgi.build(seen, gateway.parts.desk, asgi.Options(issuer=chosen.identity.issuer))
        token = await _token(stage.plan, gateway.parts.desk, ports)
        await play.perform(Callers(door, token, stage.report, play.passed_by))
        if isinstance(ports.limits, MemoryLimits):
            stage.report({"held": ports.limits.held})


@dataclass(slots=True)
class _Play:
    """The calls of a run and the one fault among them."""

    stage: Stage
    visitors: dict[str, Visitor] = field(default_factory=dict)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _passings: int = 0
    _scene: Scene | None = None

    def passed(self, point: Point, call: Call | None) -> None:
        """A port's step is being passed."""
        marker = None if call is None else call.arguments.value.get("marker")
        self.passed_by(point, marker if isinstance(marker, str) else None)

    def passed_by(self, point: Point, marker: str | None) -> None:
        """A step is being passed by the call with ``marker``: the fault strikes if this is where and when."""
        plan = self.stage.plan
        if point != plan.point or self._scene is None:
            return
        self._passings += 1
        if self._passings == plan.passing:
            self.stage.report({"struck": str(point)})
            self._scene.strike(plan.fault, marker)

    async def perform(self, callers: Callers) -> None:
        """Make all calls; returns when each has ended.

        Raises:
            Hung: some have not.
        """
        stage = self.stage
        self.visitors = {planned.marker: Visitor() for planned in stage.plan.calls}
        stage.report({"begun": len(stage.plan.calls)})
        self._scene = Scene(stage.folder, stage.upstream, stage.control, self._leave, self._stop)
        self._tasks = [
            asyncio.create_task(callers.make(planned, self.visitors[planned.marker]), name=planned.marker)
            for planned in stage.plan.calls
        ]
        try:
            ended, waiting = await asyncio.wait(self._tasks, timeout=_CALLS_S)
        finally:
            self._scene.close()
        self._tell(ended)
        if waiting:
            for task in waiting:
                task.print_stack()
            raise Hung(", ".join(task.get_name() for task in waiting))

    def _tell(self, ended: set[asyncio.Task[None]]) -> None:
        for task in ended:
            if not task.cancelled() and (error := task.exception()) is not None:
                traceback.print_exception(error)
                self.stage.report({"crashed": task.get_name(), "error": type(error).__name__})

    def _leave(self, marker: str | None) -> None:
        for name, visitor in self.visitors.items():
            if marker in {None, name}:
                visitor.gone.set()

    def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()


def _babbling(stage: Stage, chosen: GatewaySettings) -> RegoEngine:
    loaded = layers.load([layers.shipped()], chosen.policy.data)
    script, flag = str(babbler.__file__), str(stage.folder / GARBLE)
    worker = Path(layers.__file__).with_name("worker.py")
    command = (sys.executable, "-I", "-B", script, str(worker), flag, str(stage.plan.seed))
    options = EngineSettings(chosen.policy.workers, chosen.policy.deadline_ms / 1000, command=command)
    return RegoEngine(loaded, options)


async def _token(plan: Plan, desk: Desk, ports: Ports) -> str:
    # A person opens the run, or the agent has a standing token and its sessions imply runs.
    now = ports.clock.now_us()
    person = Principal(
        issuer="urn:ostiary:local",
        user="ann",
        agent=None,
        groups=frozenset(),
        scopes=frozenset({"runs"}),
        auth_method="local",
        jti=ports.clock.uuid(),
        expires_us=now + _HOUR_US,
    )
    run = await desk.runs.start(person, RunRequest("fault campaign", AGENT)) if plan.opened else None
    agent = replace(
        person,
        agent=AGENT,
        scopes=frozenset({"tools"}),
        jti=ports.clock.uuid(),
        run=None if run is None else run.id,
    )
    return desk.issuer.issue(agent)
