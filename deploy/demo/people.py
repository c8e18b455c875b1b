"""The demo's people: who opens the run, and who signs for payments."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.demo import command

GOAL = "Pay order PO-1001 of Nordwind GmbH"


@dataclass(frozen=True, slots=True)
class Reviewer:
    """A person with a signing key of their own.

    Attributes:
        key: file of the key.
    """

    name: str
    key: Path
    state: Path

    def sees(self, approval_id: str) -> list[str]:
        """What the reviewer reads before signing."""
        found = command.ask("approval", "show", approval_id, state=self.state)
        who = found["statement"]
        lines = [f"{who['agent']} for {who['user']} asks for {found['tool']} {found['arguments_json']}"]
        return [*lines, f"the goal its person gave: {found['goal']}"]

    def approve(self, approval_id: str) -> str:
        """Sign; the state of the approval."""
        said = command.ask("approve", approval_id, "--yes", "--key", str(self.key), state=self.state)
        return str(said["state"])

    def reject(self, approval_id: str, reason: str) -> str:
        """Say no, and why."""
        said = command.ask("reject", approval_id, "--reason", reason, "--key", str(self.key), state=self.state)
        return str(said["state"])


def enrolled(name: str, state: Path, folder: Path) -> Reviewer:
    """A reviewer whose key has just been made and enrolled."""
    key = folder / f"{name}.pem"
    command.ask("reviewer", "keygen", "--key", str(key))
    command.ask("reviewer", "enrol", "--person", name, "--role", "treasurer", "--key", str(key), state=state)
    return Reviewer(name, key, state)


def opened_run(url: str, state: Path) -> dict[str, Any]:
    """A clerk opens a run with a goal; the agent gets nothing but the run's token."""
    who = ["--user", "clerk", "--group", "accounts-payable", "--scope", "runs", "--scope", "tools"]
    person = command.ask("token", "issue", *who, "--ttl", "900", state=state)["token"]
    wish = ["--goal", GOAL, "--agent", "ap-agent", "--budget", "calls=50"]
    found: dict[str, Any] = command.ask("run", "open", "--url", url, *wish, OSTIARY_TOKEN=person)
    return found
