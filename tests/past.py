"""A past made of real inputs and a real engine: recorded decisions and the revision that made them, as files."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from gateway.adapters.rego.engine import EngineSettings
from gateway.adapters.rego.layers import load, shipped
from gateway.adapters.rego.past import served
from gateway.cli.root import ostiary
from gateway.core import policy_input
from gateway.core.bundle import Bundle
from gateway.core.call import Resolved
from gateway.core.decision import Decision, as_listing, fold, in_mode
from gateway.core.measures import amounts
from gateway.core.ports import PipelineSettings
from gateway.core.tool import EffectClass, Tool
from gateway.core.usage import Usage
from tests.evidence import AT_US, make_call, make_caller, make_principal, make_run, make_tool

SETTINGS = EngineSettings(workers=1, deadline_s=5.0, queue_wait_s=20.0)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def called(
    tool: str, arguments: Mapping[str, Any] | bytes | None = None, *, effect: EffectClass = EffectClass.READ, **who: Any
) -> Resolved:
    """A call of ``server.name``; ``who`` are fields of the principal."""
    server, _, name = tool.partition(".")
    principal = make_principal(**who)
    caller = make_caller(make_call(tool, arguments), principal, make_run(principal))
    pinned: Tool = make_tool(name, server=server, effect=effect)
    return Resolved(caller, pinned, None, amounts(pinned, caller.call.arguments.value))


@dataclass
class Past:
    """What a gateway would have recorded.

    Attributes:
        folder: where the files are written.
        bundle: the policy in force.
        observe: whether it was only observed.
    """

    folder: Path
    bundle: Bundle
    observe: bool = False
    events: list[dict[str, Any]] = field(default_factory=list)

    def happen(self, targets: Sequence[Resolved]) -> None:
        """Decide each as the pipeline does, and record it."""
        settings = PipelineSettings(observe=self.observe)
        first, inputs = len(self.events), []
        for number, target in enumerate(targets):
            at_us = AT_US + (first + number) * 1_000_000
            inputs.append(policy_input.listing(target, settings, at_us))
            inputs.append(policy_input.calling(target, Usage(), settings, at_us))
        decisions = asyncio.run(_decided(self.bundle, inputs))
        for number, target in enumerate(targets):
            pair = decisions[2 * number : 2 * number + 2]
            listed, ruling = (in_mode(said, target.tool, observe=self.observe) for said in pair)
            document = inputs[2 * number + 1]
            if not listed.passes:
                ruling, document = as_listing(listed), inputs[2 * number]
            self.events.append(event(first + number, target, ruling, document))

    def written(self) -> tuple[str, ...]:
        """The files on disk, as options of a command."""
        lines = "".join(json.dumps(one) + "\n" for one in self.events)
        # Lexemes as they were recorded: the input stands in the line as it is.
        for one in self.events:
            lines = lines.replace(json.dumps(one.get("input", "-")), one.get("input", '"-"'))
        (self.folder / "decisions.jsonl").write_text(lines, "utf-8")
        store = self.folder / "revisions"
        store.mkdir(exist_ok=True)
        (store / f"{self.bundle.revision}.json").write_text(json.dumps(revision(self.bundle)), "utf-8")
        return "--from", str(self.folder / "decisions.jsonl"), "--revisions", str(store)


def scoped(folder: Path, scope: Mapping[str, Any], **gateway: Any) -> Past:
    """A past under the shipped policies with these scope lists."""
    data = {"gateway": {"scope": dict(scope), **gateway}}
    return Past(folder, load([shipped()], data))


def revision(bundle: Bundle) -> dict[str, Any]:
    """A bundle as the gateway gives it."""
    modules = [[module.name, module.text] for module in bundle.modules]
    return {"revision": bundle.revision, "modules": modules, "data": bundle.data}


def event(index: int, target: Resolved, decision: Decision, document: bytes) -> dict[str, Any]:
    """An event in OPA's shape; ``input`` is the document's text, to be put in as it is."""
    at = _EPOCH + timedelta(microseconds=AT_US + index * 1_000_000)
    reasons = [
        {"id": r.id, "package": r.package, "msg": r.msg} | ({"fact": r.fact} if r.fact else {})
        for r in decision.reasons
    ]
    needs = [{"id": n.id, "msg": n.msg, "quorum": n.quorum, "roles": list(n.roles)} for n in decision.requirements]
    return {
        "decision_id": f"018f0000-0000-7000-8000-{index:012d}",
        "path": "gateway/main/decision",
        "timestamp": at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "labels": {"app": "ostiary", "env": "development", "region": "unspecified"},
        "bundles": {"ostiary": {"revision": decision.revision}},
        "input": document.decode(),
        "result": {"effect": str(decision.effect), "reasons": reasons, "requirements": needs},
        "metrics": {"timer_server_handler_ns": 1000},
        "ostiary": {
            "index": index,
            "call_id": f"018f0000-0000-7000-8000-{index:012x}",
            "run_id": target.caller.run.id,
            "tool": target.tool.fqn if target.tool.listed else None,
            "phase": str(decision.phase),
            "enforced": decision.enforced,
            "engine": decision.engine,
            "input_digest": decision.input_digest,
            "outcome": None,
        },
    }


def asked(*words: str) -> Result:
    """Run a command of ours in this process, without anything of the environment."""
    quiet: dict[str, str | None] = {"OSTIARY_URL": None, "OSTIARY_TOKEN": None, "OSTIARY_STATE": None}
    return CliRunner().invoke(ostiary, words, env=quiet)


def told(*words: str, code: int = 0) -> dict[str, Any]:
    """The JSON of ``ostiary WORDS --json``, which must end with the exit code ``code``."""
    done = asked(*words, "--json")
    assert done.exit_code == code, (done.exit_code, done.output, done.exception)
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return document


async def _decided(bundle: Bundle, inputs: Sequence[bytes]) -> list[Decision]:
    async with served(bundle, SETTINGS) as engine:
        return fold("018f0000-0000-7000-8000-0000000000de", inputs, await engine.evaluate("past", inputs))
