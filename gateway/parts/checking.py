"""What a gateway that has started is found to be, for ``check``: each part asked, each way to a credential tried."""

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from gateway.core.connector import Connector
from gateway.core.desk import Desk, Ping
from gateway.core.errors import GatewayError
from gateway.core.leasing import VaultFault
from gateway.core.tool import EffectClass, Tool
from gateway.findings import Finding
from gateway.parts import minting, vaulting
from gateway.settings import GatewaySettings

_FIXES = {
    "upstream": "start the upstream, or correct its url, command or credential (of kind code: see sandbox)",
    "credentials": "set the environment variable or file named in [credentials.*]",
    "catalogue": 'declare tools in a catalogue file, or pin an MCP upstream with trust = "first_use"',
    "policy": "`ostiary policy check DIR` names the rule",
    "audit": "free disk space and check the state folder's permissions",
    "approvals": "free disk space and check the state folder's permissions",
    "runs": "free disk space and check the state folder's permissions",
}


async def answers(desk: Desk) -> list[Finding]:
    """Every part, upstream and foreign issuer, asked whether it can serve."""
    pings = {**desk.pings, **{f"upstream:{name}": ping for name, ping in desk.upstreams.items()}}
    pings |= {f"issuer:{name}": ping for name, ping in desk.foreign_issuers.items()}
    return [await _finding(part, ping) for part, ping in pings.items()]


async def trials(
    settings: GatewaySettings,
    vault: Any,
    what: tuple[minting.Lending, Callable[[], Awaitable[list[Finding]]]],
    connectors: Mapping[str, Connector],
    tools: Iterable[Tool],
) -> list[Finding]:
    """The gateway's rights in the vault, each lease template, and the way to break the glass (second of ``what``)."""
    lending, glass = what
    return [
        *await vaulting.findings(settings, vault),
        *await minting.trials(settings, lending, connectors, tools),
        *await glass(),
    ]


def unsigned(desk: Desk, tools: Iterable[Tool]) -> list[Finding]:
    """Tools that move money where nobody may sign: a call that waits for people waits for ever."""
    money = [tool.fqn for tool in tools if tool.effect is EffectClass.MONEY]
    if not money or any(not reviewer.revoked for reviewer in desk.reviewers.all()):
        return []
    line = f"[policy.data.gateway.approval] unattended = {json.dumps(money)}"
    fix = f"`ostiary reviewer enrol --person NAME`, or let them go alone: {line}"
    return [
        Finding("reviewers", ok=False, text=f"nobody may sign, and these wait for people: {', '.join(money)}", fix=fix)
    ]


async def _finding(part: str, ping: Ping) -> Finding:
    try:
        await ping()
    except VaultFault as fault:
        return Finding(part, ok=False, text=fault.detail, fix=fault.fix)
    except GatewayError as error:
        return Finding(part, ok=False, text=error.detail, fix=_FIXES.get(part.partition(":")[0], "see the log"))
    return Finding(part, ok=True, text="ready")
