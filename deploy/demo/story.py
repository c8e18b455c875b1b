"""The acts of the demo, in order. Each tells what happens on the screen; ``judge.py`` says whether it was right."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from deploy.demo import command
from deploy.demo.house import AGENTS_PYTHON, HERE, PERIOD_S, House
from deploy.demo.people import GOAL, Reviewer
from deploy.demo.screen import Event, Screen

_PATIENCE_S = 120
_LOOK_S = 0.1
_GIFT = "pay a gift"
WRITERS = "SELECT made_by FROM invoices UNION ALL SELECT made_by FROM transfers ORDER BY 1"
LEASE_STEPS = (
    "users of the database",
    "role during the call",
    "wrong password",
    "role after the call",
    "kill -9 in the middle",
)
# What stopped each attack, in the words of the door.
STOPPED_BY = {
    "forged token": "the token's signature: nobody is let in, and nothing is logged for a stranger",
    "changed arguments after approval": "the approval binds the exact arguments: this is another action, and it waits",
    "replayed approval": "an approval is used up with the intent: the recorded outcome is told again, nothing runs",
    "SQL text in an argument": "the statement is declared and values are bound: it looked for an order of that name",
    "prompt-injected recipient": "policy: money goes to approved accounts only, whatever a vendor writes",
    "reading the vault from the sandbox": "the box: no files but its own, no network, another user, no environment",
}


@dataclass(slots=True)
class Play:
    """What is needed to act, and what was seen.

    Attributes:
        steps: how each step ended, by its name.
        said: what the agent or the attacker was told, by step.
    """

    house: House
    screen: Screen
    reviewer: Reviewer
    run_id: str
    token: str = field(repr=False)
    steps: dict[str, str] = field(default_factory=dict)
    said: dict[str, Any] = field(default_factory=dict)

    def work(self) -> None:
        """The agent works; the reviewer decides on what waits."""
        self.screen.chapter("An agent at work: it has a URL and a token, and nothing else")
        self.screen.note(f"the clerk opened a run with a goal of their own: {GOAL}")
        for step in self._process("agent.py"):
            self._show(step, "stopped" if step["outcome"] not in _GOOD else "done")
            if step["outcome"] == "pending":
                self._decide(step)

    def attack(self) -> None:
        """The same token in bad hands."""
        self.screen.chapter("Six attacks, with the agent's own token")
        box = {} if self.house.box is None else {"SANDBOX": "yes"}
        vault = self.house.erp.openbao.socket if self.house.erp else "/run/vault.sock"
        for step in self._process("attacker.py", VAULT_SOCKET=str(vault), **box):
            name = step["step"]
            self.steps[name], self.said[name] = step["outcome"], step["said"]
            words = f"stopped by {STOPPED_BY[name]}"
            self.screen.event(Event(name, "stopped", step["outcome"], words, {"said": step["said"]}))
        if self.house.box is None:
            self._skip("reading the vault from the sandbox", "sandbox")

    def lease(self) -> None:
        """The life of a credential, looked at from outside."""
        self.screen.chapter("Credentials that exist for one call")
        if self.house.erp is None:
            for name in LEASE_STEPS:
                self._skip(name, "leases")
            return
        writers = [str(name) for (name,) in self.house.rows(WRITERS)]
        words = f"the agent's three rows were written by {', '.join(writers)}: each existed for one call"
        self._tell("users of the database", "all gone", words, good=not self._left(0))
        with self._calling(seconds=2) as caller:
            role = self._role()
            self._tell("role during the call", "there", f"{role} in pg_roles, made by OpenBao for this call", good=True)
            refused = _refused(self.house, role)
            self._tell("wrong password", "refused" if refused else "LET IN", refused, good=bool(refused))
            caller.wait(_PATIENCE_S)
        left = self._left(0)
        self._tell(
            "role after the call", "gone" if not left else "LEFT", "dropped before the answer was given", good=not left
        )
        self._killed()

    def _killed(self) -> None:
        with self._calling(seconds=25) as caller:
            role = self._role()
            self.house.stop(signal.SIGKILL)
            killed = time.monotonic()
            caller.wait(_PATIENCE_S)
        with self.screen.working(f"the gateway was killed; its tokens live {PERIOD_S} s"):
            left = self._left(PERIOD_S + 4)
        after = time.monotonic() - killed
        words = f"{role} was gone {after:.1f} s after kill -9: the vault's token for it was not renewed"
        self._tell("kill -9 in the middle", "gone" if not left else "LEFT", words, good=not left)
        self.house.start()
        found = command.ask("audit", "search", "--type", "tool.outcome_unknown", state=self.house.state)["records"]
        words = "the next start ended the call as outcome_unknown: it may have happened, and is not tried again"
        self._tell("the call that was cut off", "swept" if found else "LOST", words, good=bool(found))

    def _decide(self, step: Mapping[str, Any]) -> None:
        name, approval_id = str(step["step"]), str(step["said"]["approval_id"])
        sees = self.reviewer.sees(approval_id)
        if name == _GIFT:
            state = self.reviewer.reject(approval_id, "no invoice, no purchase order")
        else:
            state = self.reviewer.approve(approval_id)
        word = "rejected" if state == "rejected" else "signed"
        self._tell(f"{self.reviewer.name} decides", word, "\n".join(sees), good=True)

    def _show(self, step: Mapping[str, Any], kind: str) -> None:
        name, outcome = str(step["step"]), str(step["outcome"])
        self.steps[name], self.said[name] = outcome, step["said"]
        kind = "parked" if outcome == "pending" else kind
        words = f"{step['surface']} {step['tool']}: {_words(step['said'])}"
        self.screen.event(Event(name, kind, outcome, words, {"said": step["said"], "call_id": step["call_id"]}))

    def _tell(self, name: str, outcome: str, words: str, *, good: bool) -> None:
        self.steps[name] = outcome
        self.screen.event(Event(name, "done" if good else "wrong", outcome, words))

    def _skip(self, name: str, part: str) -> None:
        self.steps[name] = "SKIPPED"
        self.screen.event(Event(name, "skipped", "SKIPPED", self.house.skipped[part]))

    def _process(self, script: str, **more: str) -> Iterator[dict[str, Any]]:
        environment = {"PATH": os.environ["PATH"], "OSTIARY_URL": self.house.url, "OSTIARY_TOKEN": self.token, **more}
        words = [str(AGENTS_PYTHON), str(HERE / script)]
        with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout or ():
                yield json.loads(line)
        if process.returncode != 0:
            self._tell(script, "CRASHED", "its words are above", good=False)

    @contextmanager
    def _calling(self, seconds: int) -> "Iterator[subprocess.Popen[bytes]]":
        words = [
            *command.OSTIARY,
            "tool",
            "call",
            "erp.reconcile",
            "--arg",
            f"seconds={seconds}",
            "--url",
            self.house.url,
        ]
        environment = {**os.environ, "OSTIARY_TOKEN": self.token}
        quiet = subprocess.DEVNULL
        with subprocess.Popen(words, env=environment, stdout=quiet, stderr=quiet, cwd=command.ROOT) as process:
            yield process

    def _role(self) -> str:
        # Patiently: the call has to start first.
        deadline = time.monotonic() + _PATIENCE_S
        while self.house.erp is not None and time.monotonic() < deadline:
            found = self.house.erp.minted()
            if found:
                return found[0]
            time.sleep(_LOOK_S)
        return "no role"

    def _left(self, seconds: float) -> list[str]:
        deadline = time.monotonic() + seconds
        while self.house.erp is not None:
            found = self.house.erp.minted()
            if not found or time.monotonic() >= deadline:
                return found
            time.sleep(_LOOK_S)
        return []


_GOOD = frozenset({"completed", "listed", "carried out", "told again"})


def _refused(house: House, role: str) -> str:
    """What PostgreSQL says to a wrong password of that role; empty where it lets one in."""
    return house.erp.postgres.refusal(role, "not-the-password") if house.erp is not None else ""


def _words(said: Any) -> str:
    """What was told, in short."""
    if isinstance(said, dict) and said.get("reasons") and said.get("status") != "pending":
        reason = said["reasons"][0]
        return f"{reason['id']}: {reason['msg']}"
    if isinstance(said, dict):
        for member in ("detail", "message", "stdout"):
            if isinstance(said.get(member), str):
                return str(said[member]).strip()
    return said if isinstance(said, str) else json.dumps(said)
