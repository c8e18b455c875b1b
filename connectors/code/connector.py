"""The connector for code: one box for each call, reached through the ``SandboxRunner`` port only.

A result is ``{"ended", "exit_code", "stdout", "stderr", "usage", "box"}``, and the same as text. ``ended`` is
``exited`` or the cap that killed the box: a cap ends the code, it never shortens its output unsaid. What did not exit
with 0 is marked ``isError``, for the model to act on. ``box`` says what held the code: backend, system call filter,
digest of the code, caps, and what this host could not hold.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from gateway.core.call import Lease, Raw
from gateway.core.canonical import encode
from gateway.core.errors import NotSent, Unavailable
from gateway.core.sandbox import NO_SANDBOX, BoxLimits, Capabilities, Ended, Outcome, SandboxRunner
from gateway.core.tool import Tool

# The box ends before the caller's patience does, so that how it ended is known.
_SHARE_OF_TIMEOUT = 0.9
_LANGUAGES = frozenset({"python"})


@dataclass(frozen=True, slots=True)
class CodeConnector:
    """Runs the code of leased calls. See ``core.connector.Connector``.

    Failure mode: a host whose sandbox lacks what no policy accepts runs nothing (``Unavailable``, cause
    ``sandbox_degraded``); so does one where no box can be had. A box reaches nothing outside itself, so a lost one has
    simply failed.
    """

    sandbox: SandboxRunner

    async def invoke(self, lease: Lease) -> Raw:
        """Run the code the arguments hold; on cancellation its box is killed.

        Raises:
            NotSent: the arguments hold no code.
            Unavailable: the sandbox may not be used as it is, or has no box.
            ToolFailed: the box was lost.
        """
        intent = lease.intent
        seen = await self.sandbox.probe()
        _require(seen, intent.decision.obligations.accept_missing)
        text, stdin = _program(intent.tool, intent.call.arguments.value)
        limits = _limits(intent.tool.binding["limits"], intent.timeout_s)
        outcome = await self.sandbox.run(text, stdin, limits, seen)
        return _raw(lease, outcome, _box(seen, text, limits))

    async def ping(self) -> None:
        """Boxes can be started; what they lack is for policy to judge, call by call.

        Raises:
            Unavailable: they cannot.
        """
        seen = await self.sandbox.probe()
        if not seen.usable:
            raise _degraded([NO_SANDBOX])


def check(tool: Tool) -> list[str]:
    """What is wrong with a code tool's declaration, held against its schema; empty = nothing."""
    properties = tool.definition["inputSchema"].get("properties", {})
    required = tool.definition["inputSchema"].get("required", [])
    code, given = tool.binding["code"], tool.binding["input"]
    wrong = []
    if tool.binding["language"] not in _LANGUAGES:
        wrong.append("code.language is none that boxes have")
    if code not in required or properties.get(code, {}).get("type") != "string":
        wrong.append(f"code.code: {code!r} must be a required argument of type string")
    if given is not None and given not in properties:
        wrong.append(f"code.input: {given!r} is no argument of the input schema")
    return [f"{tool.fqn}: {problem}" for problem in wrong]


def _require(seen: Capabilities, accepted: tuple[str, ...]) -> None:
    lacking = [name for name in seen.missing if name not in accepted]
    if not seen.usable:
        lacking = [NO_SANDBOX]
    if lacking:
        raise _degraded(lacking)


def _degraded(lacking: list[str]) -> Unavailable:
    if lacking == [NO_SANDBOX]:
        return Unavailable("this host has no sandbox to run code in", cause_code="sandbox_degraded")
    words = f"this host's sandbox cannot cap: {', '.join(lacking)}; policy does not accept that"
    return Unavailable(words, cause_code="sandbox_degraded")


def _program(tool: Tool, arguments: Mapping[str, Any]) -> tuple[bytes, bytes]:
    text = arguments.get(tool.binding["code"])
    if not isinstance(text, str):
        raise NotSent("the arguments hold no code", cause_code="binding")
    name = tool.binding["input"]
    stdin = encode(arguments[name]) if name is not None and name in arguments else b""
    return text.encode(), stdin


def _limits(binding: Mapping[str, Any], timeout_s: float) -> BoxLimits:
    return BoxLimits(
        memory_mb=binding["memory_mb"],
        pids=binding["pids"],
        cpu_ms=max(1, round(binding["cpu_s"] * 1000)),
        wall_ms=max(1, round(min(binding["wall_s"], timeout_s * _SHARE_OF_TIMEOUT) * 1000)),
        output_bytes=binding["output_bytes"],
        work_mb=binding["work_mb"],
    )


def _box(seen: Capabilities, text: bytes, limits: BoxLimits) -> dict[str, Any]:
    return {
        "backend": seen.backend,
        "seccomp_sha256": seen.seccomp,
        "code_sha256": hashlib.sha256(text).hexdigest(),
        "limits": asdict(limits),
        "missing": list(seen.missing),
    }


def _raw(lease: Lease, outcome: Outcome, box: dict[str, Any]) -> Raw:
    shown = {
        "ended": outcome.ended,
        "exit_code": outcome.exit_code,
        "stdout": outcome.stdout.decode("utf-8", "replace"),
        "stderr": outcome.stderr.decode("utf-8", "replace"),
        "usage": asdict(outcome.spent),
        "box": box,
    }
    text = msgspec.json.encode(shown)
    failed = outcome.ended is not Ended.EXITED or outcome.exit_code != 0
    result = {"content": [{"type": "text", "text": text.decode()}], "structuredContent": msgspec.Raw(text)}
    body = msgspec.json.encode({**result, "isError": True} if failed else result)
    return Raw(lease, body, msgspec.json.decode(body))
