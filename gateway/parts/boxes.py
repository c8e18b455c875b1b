"""What operators are told of this host's sandbox: what it holds, what it lacks, and the line that would accept that."""

from collections.abc import Collection, Iterator

from gateway.core.sandbox import NO_SANDBOX, Capabilities
from gateway.findings import Finding
from gateway.parts import confining, upstreams
from gateway.settings import GatewaySettings
from gateway.settings.upstreams import CodeUpstream

_POLICY = "[policy.data.gateway.sandbox]"


async def findings(settings: GatewaySettings, accepted: Collection[str]) -> list[Finding]:
    """Try the sandbox and say how it is, where an upstream needs it; and which servers by command are not confined.

    ``accepted``: names of caps that policy data lets be missing.
    """
    runs_code = any(isinstance(upstream, CodeUpstream) for upstream in settings.upstreams.values())
    if not runs_code and not confining.wants_box(settings):
        return list(confining.findings(settings, Capabilities(None)))
    async with upstreams.runner(settings) as sandbox:
        seen = await sandbox.probe()
    code = _of_code(seen, accepted) if runs_code else [Finding("sandbox", ok=True, text=summary(seen))]
    return [*code, *confining.findings(settings, seen)]


def _of_code(seen: Capabilities, accepted: Collection[str]) -> list[Finding]:
    if not seen.usable:
        return [Finding("sandbox", ok=False, text="code tools are refused", fix=seen.fixes.get(NO_SANDBOX))]
    return [Finding("sandbox", ok=True, text=summary(seen)), *_missing(seen, accepted)]


def summary(seen: Capabilities) -> str:
    """The sandbox on one line."""
    if not seen.usable:
        return f"none: {seen.fixes.get(NO_SANDBOX, 'not tried')}"
    held = ", ".join(f"{name} ({how})" for name, how in seen.held.items())
    lacking = f"; cannot cap {', '.join(seen.missing)}" if seen.missing else ""
    whose = "user ids of their own" if seen.own_uid else "the gateway's user id"
    return f"{seen.backend}, boxes under {whose}; holds {held or 'isolation only'}{lacking}"


def policy_line(missing: Collection[str]) -> str:
    """What to write into ``gateway.toml`` to accept that ``missing`` is not held."""
    names = ", ".join(f'"{name}"' for name in missing)
    return f"{_POLICY} accept_missing = [{names}]"


def _missing(seen: Capabilities, accepted: Collection[str]) -> Iterator[Finding]:
    line = policy_line(dict.fromkeys((*accepted, *seen.missing)))
    for name in seen.missing:
        if name in accepted:
            yield Finding(f"sandbox:{name}", ok=True, text="this host cannot cap it; policy data accepts that")
        else:
            fix = f"{seen.fixes[name]}; or accept it, in gateway.toml: {line}"
            yield Finding(f"sandbox:{name}", ok=False, text="this host cannot cap it: code tools are refused", fix=fix)
