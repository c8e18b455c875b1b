"""What must have happened: every step's end, the world behind the gateway, and no secret anywhere."""

import json
import re
from collections.abc import Iterator

from deploy.demo.story import LEASE_STEPS, WRITERS, Play

EXPECTED = {
    "list the tools": "listed",
    "read an order": "completed",
    "look a vendor up": "completed",
    "stage an invoice": "completed",
    "stage another": "completed",
    "add them up in a sandbox": "completed",
    "a report that blurts its login": "completed",
    "pay the order": "pending",
    "pay the order: what came of it": "carried out",
    "pay a gift": "pending",
    "pay a gift: what came of it": "denied",
    "go over 5,000.00 in the run": "denied",
    "vera decides": "rejected",
    "forged token": "unauthenticated",
    "changed arguments after approval": "pending",
    "replayed approval": "told again",
    "SQL text in an argument": "completed",
    "prompt-injected recipient": "denied",
    "reading the vault from the sandbox": "completed",
    "users of the database": "all gone",
    "role during the call": "there",
    "wrong password": "refused",
    "role after the call": "gone",
    "kill -9 in the middle": "gone",
    "the call that was cut off": "swept",
    "the log, by another process": "sound",
    "one byte of a copy flipped": "found",
}
_NEEDS = {
    "leases": LEASE_STEPS,
    "sandbox": ("reading the vault from the sandbox",),
}
_ABSENT = {"leases": ("the call that was cut off",), "sandbox": ("add them up in a sandbox",)}
_LOGIN = re.compile(r"v-[a-z-]+-[A-Za-z0-9]{6,}:[A-Za-z0-9]{16,}")


def findings(play: Play) -> Iterator[str]:
    """What was not as it must be; nothing where all was."""
    expected = dict(EXPECTED)
    for part in play.house.skipped:
        expected |= dict.fromkeys(_NEEDS[part], "SKIPPED")
        for name in _ABSENT[part]:
            del expected[name]
    for name in sorted(expected.keys() | play.steps.keys()):
        if expected.get(name) != play.steps.get(name):
            yield f"{name}: {expected.get(name)} was expected, {play.steps.get(name)} came"
    yield from _world(play)
    yield from _secrets(play)
    yield from _attacks(play)


def _world(play: Play) -> Iterator[str]:
    house = play.house
    transfers = house.rows("SELECT iban, amount, reference FROM transfers")
    if transfers != [("DE02120300000000202051", 400_000, "PO-1001")]:
        yield f"one payment was approved, these were made: {transfers}"
    staged = house.rows("SELECT invoice, amount FROM invoices ORDER BY invoice")
    if staged != [("INV-1", 180_000), ("INV-2", 220_000)]:
        yield f"two invoices were let through, these are staged: {staged}"
    if house.erp is not None:
        writers = {str(name) for (name,) in house.rows(WRITERS)}
        if len(writers) != len(staged) + len(transfers) or not all(name.startswith("v-") for name in writers):
            yield f"the rows were not each written by a user of their own: {sorted(writers)}"


def _secrets(play: Play) -> Iterator[str]:
    told = json.dumps(play.said)
    if play.house.vendor_key in told or play.house.vendor_key.encode().hex() in told:
        yield "the vendor's key reached the agent"
    if _LOGIN.search(told):
        yield "a database login reached the agent"
    report = play.said.get("a report that blurts its login")
    if play.house.erp is not None and not (isinstance(report, dict) and report.get("had_a_login")):
        yield "the report server got no login"
    words = (play.house.folder / "gateway.err").read_text("utf-8")
    if play.house.vendor_key in words or _LOGIN.search(words):
        yield "a secret stands in the gateway's own words"


def _attacks(play: Play) -> Iterator[str]:
    approved = play.said.get("pay the order")
    changed = play.said.get("changed arguments after approval")
    if isinstance(approved, dict) and isinstance(changed, dict) and approved["approval_id"] == changed["approval_id"]:
        yield "changed arguments attached to the approval of others"
    if play.said.get("SQL text in an argument") != {"rows": [], "row_count": 0}:
        yield f"SQL text in an argument did something: {play.said.get('SQL text in an argument')}"
    injected = play.said.get("prompt-injected recipient")
    rules = [reason["id"] for reason in injected.get("reasons", ())] if isinstance(injected, dict) else []
    if rules[:1] != ["payees.unknown_account"]:
        yield f"the injected recipient was not stopped by the rule about payees: {rules}"
    if play.house.box is not None:
        yield from _box(play)


def _box(play: Play) -> Iterator[str]:
    said = play.said.get("reading the vault from the sandbox")
    try:
        found = json.loads(said["stdout"]) if isinstance(said, dict) else {}
    except (KeyError, ValueError):
        found = {}
    if found.keys() != {"files", "vault", "network", "environment", "uid"}:
        yield f"the probe in the sandbox said nothing: {said}"
        return
    if found["files"] or found["environment"] or found["uid"] == 0 or "connected" in {found["vault"], found["network"]}:
        yield f"the probe in the sandbox found something: {found}"
