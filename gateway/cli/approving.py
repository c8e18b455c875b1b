"""``ostiary approval``, ``approve`` and ``reject``: a reviewer looks at exactly what they sign, and signs it here.

What is shown is what is signed: the arguments' hash is computed from the text on the screen, and the statement that is
signed is the one whose fields are shown. A gateway that shows one thing and wants another signed is found out.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from gateway.cli import reviewer_key
from gateway.cli.folding import for_screen
from gateway.cli.reach import Reach, reaching
from gateway.cli.reviewer_key import ReviewerKey
from gateway.cli.screen import Failed, answer, columns, shown, wants_json
from gateway.core.approval import Verdict
from gateway.core.lookalikes import guarded
from gateway.core.signing import approval_message

_MICRO = 1_000_000
# What is shown of the statement, besides arguments, needs and expiry.
_SHOWN = ("user", "agent", "issuer", "run", "definition", "revision", "origin")


@dataclass(frozen=True, slots=True)
class Reviewing:
    """Approvals at one gateway, decided with one key."""

    reach: Reach
    key: ReviewerKey | None

    def waiting(self) -> list[dict[str, Any]]:
        """The oldest that wait for people, in short."""
        found: list[dict[str, Any]] = self.reach.get("/v1/approvals")["approvals"]
        return found

    def show(self, approval_id: str) -> dict[str, Any]:
        """One approval, checked: what is shown is what would be signed.

        Raises:
            Failed: there is none, or the gateway shows something else than it wants signed.
        """
        found: dict[str, Any] = self.reach.get(_path(approval_id))
        if _shown_and_signed(found, approval_id):
            return found
        raise Failed("what the gateway shows is not what it wants signed", "do not approve; tell its operator")

    def decide(self, found: dict[str, Any], verdict: Verdict, reason: str | None = None) -> dict[str, Any]:
        """Sign a verdict on what ``show`` gave, and hand it in.

        Raises:
            Failed: refused.
        """
        key = self.key or reviewer_key.load(None)
        body: dict[str, Any] = {
            "verdict": verdict.value,
            "key_id": key.id,
            "signature": key.sign(approval_message(found["statement"], verdict, reason)),
        }
        if reason is not None:
            body["reason"] = reason
        decided: dict[str, Any] = self.reach.post(f"{_path(found['id'])}/decision", body)
        return decided


@click.group()
def approval() -> None:
    """List and show calls that wait for people."""


@approval.command("list")
@reaching
def list_(reach: Reach) -> None:
    """List what waits, oldest first."""
    found = Reviewing(reach, None).waiting()
    rows = [(one["id"], one["tool"], _who(one), one["arguments_head"][:60], one["missing"]) for one in found]
    answer({"approvals": found}, columns(("APPROVAL", "TOOL", "FOR", "ARGUMENTS", "MISSING"), rows))


@approval.command()
@click.argument("approval_id", metavar="ID")
@reaching
def show(reach: Reach, approval_id: str) -> None:
    """Show the approval ID, whole."""
    found = Reviewing(reach, None).show(approval_id)
    answer(found, for_screen(lines(found)))


@click.command()
@click.argument("approval_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask; for scripts that have shown it themselves.")
@reviewer_key.key_option
@reaching
def approve(reach: Reach, approval_id: str, key_file: Path | None, *, yes: bool) -> None:
    """Approve the call ID: it is shown whole, then signed with your key."""
    desk = Reviewing(reach, reviewer_key.load(key_file))
    found = desk.show(approval_id)
    if not yes:
        if wants_json():
            raise click.UsageError("with --json give --yes, too: nobody is asked")
        click.echo("\n".join(for_screen(lines(found))))
        click.confirm("\nSign and approve exactly this?", abort=True)
    decided = desk.decide(found, Verdict.APPROVE)
    answer(decided, [_outcome(decided)])


@click.command()
@click.argument("approval_id", metavar="ID")
@click.option("--reason", required=True, help="Why; the agent is told.")
@reviewer_key.key_option
@reaching
def reject(reach: Reach, approval_id: str, key_file: Path | None, reason: str) -> None:
    """Reject the call ID; the agent is told the reason."""
    desk = Reviewing(reach, reviewer_key.load(key_file))
    decided = desk.decide(desk.show(approval_id), Verdict.REJECT, reason)
    answer(decided, [_outcome(decided)])


def lines(found: dict[str, Any]) -> list[str]:
    """An approval for a reviewer's eyes: everything, nothing cut short, nothing that can move the cursor."""
    statement = found["statement"]
    said = [f"approval   {guarded(found['id'])}  ({guarded(found['state'])})", f"tool       {guarded(found['tool'])}"]
    said += [f"{name.ljust(10)} {guarded(statement[name])}" for name in _SHOWN if statement.get(name) is not None]
    if found.get("goal"):
        said.append(f"goal       {guarded(found['goal'])}")
    said.append(f"expires    {datetime.fromtimestamp(found['expires_us'] / _MICRO, UTC):%Y-%m-%d %H:%M:%S} UTC")
    said += ["arguments", *(f"  {guarded(line)}" for line in _pretty(found["arguments_json"]))]
    for need in found["requirements"]:
        roles = f" as {', '.join(map(guarded, need['roles']))}" if need["roles"] else ""
        said.append(f"needs      {need['quorum']} signed{roles}, {need['missing']} missing: {guarded(need['msg'])}")
    said += [f"because    {guarded(reason['id'])}: {guarded(reason['msg'])}" for reason in found["reasons"]]
    said += [f"signed     {guarded(one['person'])}: {guarded(one['verdict'])}" for one in found["signatures"]]
    return said if not found.get("why") else [*said, f"why        {guarded(found['why'])}"]


def _pretty(text: str) -> list[str]:
    # A number that Python would round or write otherwise is shown as the text that is signed.
    value = json.loads(text)
    pretty = json.dumps(value, indent=2, ensure_ascii=False)
    same = json.dumps(value, ensure_ascii=False, separators=(",", ":")) == text
    return pretty.split("\n") if same else text.split("\n")


def _shown_and_signed(found: dict[str, Any], approval_id: str) -> bool:
    # What is done, for whom and on how many words comes from the statement, or is held against it here. The goal,
    # policy's sentences and who has signed are the gateway's word.
    statement = found.get("statement") or {}
    digest = hashlib.sha256(str(found.get("arguments_json")).encode()).hexdigest()
    needs = [{name: need.get(name) for name in ("id", "quorum", "roles")} for need in found.get("requirements", ())]
    said = {"approval": approval_id, "tool": found.get("tool"), "expires_us": found.get("expires_us")}
    said |= {"arguments_sha256": digest, "requirements": needs}
    return found.get("id") == approval_id and all(statement.get(name) == value for name, value in said.items())


def _who(found: dict[str, Any]) -> str:
    return f"{found.get('agent') or '-'} for {found.get('user')}"


def _missing(found: dict[str, Any]) -> int:
    return max((need["missing"] for need in found["requirements"]), default=0)


def _outcome(decided: dict[str, Any]) -> str:
    lacking = _missing(decided)
    more = f", {lacking} more to sign" if decided["state"] == "pending" else ""
    return f"{shown(decided['state'])}{more}  {shown(decided['id'])}"


def _path(approval_id: str) -> str:
    return f"/v1/approvals/{quote(approval_id, safe='')}"
