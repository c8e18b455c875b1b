"""Checks an export bundle of an Ostiary audit log. Needs Python 3.11, the `cryptography` package, and nothing else.

    python -I verify.py --vkey KEY [--policy FILE] [--run ID] [FOLDER]

It believes one public key of the log alone, KEY (a file, or its text) or those of a C2SP tlog-policy FILE, which you
should have from elsewhere: each record is hashed as stored and must lead to the signed root (RFC 6962, C2SP
tlog-checkpoint), each run must be a chain, opened payloads what records commit to, reviewers' signatures good. It says
what was not checked. Exit code 0: sound; 1: not.
"""

import argparse
import base64
import hashlib
import hmac
import json
import runpy
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TextIO

# With -I, Python does not look beside this file by itself; and it leaves no compiled file in the bundle like this.
trust: Any = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("trust.py"))))
Unsound, need, unbase64, check_signature = trust.Unsound, trust.need, trust.unbase64, trust.check_signature
FORMAT = "ostiary.export/v1"
MANIFEST, SEAL = "manifest.json", "manifest.sha256"
MEMBERS = {"format", "made_at", "made_by", "selection", "origin", "size", "records", "payloads", "unproven", "files"}
FACE = ("approval", "tool", "definition", "expires_us")
SHAPES = ({"index", "leaf", "proof"}, {"index", "role", "text"}, {"index", "role", "base64"})
ENDINGS = ("tool.completed", "tool.failed", "tool.not_sent", "tool.outcome_unknown")
MALFORMED = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError)


@dataclass
class Run:
    """A run as far as it is here: number of its first and last record, hash of the last, gaps, what its end counts."""

    first: int
    last: int
    hash: str = ""
    gaps: int = 0
    count: int | None = None

    @property
    def whole(self) -> bool:
        """Whether all of it is here, from its start to its end."""
        return self.first == 0 and self.gaps == 0 and self.count is not None

    def __str__(self) -> str:
        part = f"numbers {self.first} to {self.last}, {self.gaps} gaps, its end is {'' if self.count else 'not '}here"
        return f"whole, from its start to its end: {self.last + 1} records" if self.whole else part


@dataclass
class Result:
    """What was found."""

    key: str = ""
    size: int = 0
    root: str = ""
    records: int = 0
    payloads: int = 0
    sealed: int = 0
    came_along: bool = False  # the key, with the bundle
    signatures: int = 0
    runs: dict[str, Run] = field(default_factory=dict)
    open_calls: set[str] = field(default_factory=set)
    revisions: set[str] = field(default_factory=set)  # whose policies are not here
    unchecked: list[str] = field(default_factory=list)
    signers: list[str] = field(default_factory=list)  # each key and witness: up to where


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose members all have different names."""
    need(len({name for name, _ in pairs}) == len(pairs), "a JSON object has a member twice")
    return dict(pairs)


def parsed(text: str | bytes, what: str) -> Any:
    """Strict JSON."""
    try:
        return json.loads(text, object_pairs_hook=unique)
    except MALFORMED as error:
        raise Unsound(f"{what} cannot be read: {error}") from None


def digest(value: Any) -> bytes:
    """SHA-256 of what people sign, in canonical form. Records are hashed as they are, never written anew."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).digest()


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file with one a line."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            where = f"{path.name}, line {number}"
            need(line.endswith(b"\n"), f"{where} is cut off")
            need(set(found := parsed(line, where)) in SHAPES, f"{where} has other members than it should have")
            yield found


def check_files(folder: Path) -> dict[str, Any]:
    """Every file is listed and is as it was written, and there are no others; returns the manifest."""
    manifest = (folder / MANIFEST).read_bytes()
    seal = f"{hashlib.sha256(manifest).hexdigest()}  {MANIFEST}\n"
    need((folder / SEAL).read_bytes() == seal.encode(), f"{MANIFEST} and {SEAL} do not fit: one was altered")
    found: dict[str, Any] = parsed(manifest, MANIFEST)
    need(found.get("format") == FORMAT and set(found) == MEMBERS, f"{MANIFEST} is of another format")
    there = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if not path.is_dir()}
    need(not any(path.is_symlink() for path in folder.rglob("*")), "the bundle holds a link to elsewhere")
    listed: dict[str, str] = found["files"]
    odd = sorted(listed.keys() ^ (there.keys() - {MANIFEST, SEAL}))
    need(not odd, "; ".join(f"{name} is {'missing' if name in listed else 'not part of the bundle'}" for name in odd))
    for name, hashed in listed.items():
        with there[name].open("rb") as file:
            need(hashlib.file_digest(file, "sha256").hexdigest() == hashed, f"{name} was altered or cut off")
    return found


def root_of(leaf: bytes, index: int, size: int, proof: list[bytes]) -> bytes:
    """The root that an inclusion proof leads to: RFC 9162, section 2.1.3.2."""
    node, last, found = index, size - 1, leaf
    for sibling in proof:
        if node & 1 or node == last:
            found = hashlib.sha256(b"\x01" + sibling + found).digest()
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            found = hashlib.sha256(b"\x01" + found + sibling).digest()
        node, last = node >> 1, last >> 1
    return found if last == 0 else b""


class Check:
    """One pass over the records, in log order."""

    def __init__(self, folder: Path, result: Result, root: bytes) -> None:
        self._result = result
        self._root = root
        self._reviewers: dict[str, dict[str, Any]] = {}
        self._approvals: dict[str, dict[str, Any]] = {}
        self._payloads = lines(folder / "payloads.jsonl")
        self.payload = next(self._payloads, None)
        self._keys: dict[str, str] = parsed((folder / "keys.json").read_bytes(), "keys.json")
        self._last = -1

    def record(self, line: dict[str, Any]) -> None:
        """Take the next line of records.jsonl."""
        index, entry = line["index"], line["leaf"].encode()
        need(self._last < index < self._result.size, f"record {index} stands twice, out of order or beyond the tree")
        hashed = hashlib.sha256(b"\x00" + entry).digest()
        root = root_of(hashed, index, self._result.size, [unbase64(each) for each in line["proof"]])
        need(root == self._root, f"record {index} is not in the signed log: it was altered, or its proof was")
        self._last = index
        self._result.records += 1
        leaf = parsed(entry, f"record {index}")
        self._chain(leaf, hashed)
        self._people(leaf, self._opened(index, leaf))

    def _chain(self, leaf: dict[str, Any], hashed: bytes) -> None:
        name, seq = leaf["run_id"], leaf["seq_run"]
        if name is None:
            return
        run = self._result.runs.get(name)
        if run is None:
            need(seq > 0 or leaf["type"] == "run.started", f"run {name} does not begin with its start")
            run = self._result.runs[name] = Run(seq, seq)
        else:
            need(seq > run.last, f"run {name}: record number {seq} stands after number {run.last}")
            follows = leaf["prev_run"] == run.hash or seq > run.last + 1
            need(follows, f"run {name}: record number {seq} does not continue the one before it")
            run.gaps += seq > run.last + 1
        run.last, run.hash = seq, hashed.hex()
        if leaf["type"] == "tool.requested":
            self._result.open_calls.add(leaf["call_id"])
        elif leaf["type"] in ENDINGS:
            self._result.open_calls.discard(leaf["call_id"])
        elif leaf["type"] == "run.ended":
            need(leaf["body"]["count"] == seq + 1, f"run {name}: its end does not count its records")
            run.count = seq + 1

    def _opened(self, index: int, leaf: dict[str, Any]) -> dict[str, bytes]:
        refs = {ref["role"]: ref for ref in leaf["payloads"]}
        opened: dict[str, bytes] = {}
        while self.payload is not None and self.payload["index"] == index:
            line, self.payload = self.payload, next(self._payloads, None)
            role = line["role"]
            where = f"record {index}: its opened {role} payload"
            need(role in refs and role not in opened, f"{where} stands twice, or the record has none")
            content = line["text"].encode() if "text" in line else unbase64(line["base64"])
            key = bytes.fromhex(self._keys.get(refs[role]["dek"], ""))
            need(len(key) == 32, f"{where} cannot be checked: keys.json has no key for it")  # noqa: PLR2004
            commitment = hmac.new(key, content, "sha256").hexdigest()
            same = hmac.compare_digest(commitment, refs[role]["commit"]) and len(content) == refs[role]["len"]
            need(same, f"{where} is not what the record commits to")
            opened[role] = content
        self._result.payloads += len(opened)
        self._result.sealed += len(refs) - len(opened)
        return opened

    def _people(self, leaf: dict[str, Any], opened: dict[str, bytes]) -> None:
        kind, body = leaf["type"], leaf["body"]
        if kind == "decision":
            self._result.revisions.add(body["revision"])
        elif kind == "reviewer.enrolled":
            self._enrolled(body)
        elif kind == "reviewer.revoked" and body["key"] in self._reviewers:
            self._reviewers[body["key"]]["revoked"] = True
        elif kind == "approval.requested":
            arguments = self._action(body, opened["action"]) if "action" in opened else None
            self._approvals[body["approval"]] = leaf | {"by": {}, "approved": False, "arguments": arguments}
        elif kind == "approval.decided":
            self._decided(body)
        elif kind == "tool.requested" and "approval" in body:
            self._used(leaf, opened)
        elif kind == "tool.not_sent" and body.get("approval") in self._approvals:
            self._approvals[body["approval"]]["approved"] = True

    def _enrolled(self, body: dict[str, Any]) -> None:
        public, name, signer = bytes.fromhex(body["public"]), body["key"], body["enrolled_by"]
        need(hashlib.sha256(public).digest()[:16].hex() == name, "a reviewer's key is not the one its id names")
        need(name not in self._reviewers, f"reviewer's key {name} was enrolled twice")
        if signer is None:
            revoked = all("revoked" in key for key in self._reviewers.values())
            need(revoked, f"reviewer's key {name} was enrolled without the signature of an enrolled key")
        elif signer in self._reviewers:
            need("revoked" not in self._reviewers[signer], f"reviewer's key {name} was enrolled by a revoked key")
            word = {name: body[name] for name in ("public", "document")} | {"v": 1, "origin": self._result.key}
            self._signed(signer, body, b"ostiary.enrolment/v1\n", word | {"roles": sorted(body["roles"])})
        else:
            self._result.unchecked.append(f"who enrolled reviewer's key {name}: {signer} is not in this bundle")
        self._reviewers[name] = dict(body)

    def _signed(self, key: str, body: dict[str, Any], context: bytes, word: dict[str, Any]) -> None:
        public, signature = bytes.fromhex(self._reviewers[key]["public"]), bytes.fromhex(body["signature"])
        check_signature(public, signature, context + digest(word), f"a signature of key {key} is not good")
        self._result.signatures += 1

    def _decided(self, body: dict[str, Any]) -> None:
        asked, key, name = self._approvals.get(body["approval"]), body["key"], f"approval {body['approval']}"
        if asked is None or key not in self._reviewers:
            self._result.unchecked.append(f"who decided {name}: its request or the reviewer's key is not here")
            return
        need("revoked" not in self._reviewers[key], f"{name} was decided with a revoked key")
        need(self._reviewers[key]["person"] == body["person"], f"{name}: key {key} is another person's")
        word = {member: asked["body"][member] for member in FACE} | {"origin": self._result.key, "v": 1}
        word |= {"verdict": body["verdict"], "statement": body["statement"]}
        self._signed(key, body, b"ostiary.approval/v1\n", word)
        asked["approved"] = body["state"] == "approved"
        if body["verdict"] == "approve":
            need(body["statement"] == asked["body"]["statement"], f"{name}: another action was approved")
            asked["by"][key] = body["person"]
        persons = {person for key, person in asked["by"].items() if "revoked" not in self._reviewers[key]}
        need(len(persons) >= asked["body"]["persons"] or not asked["approved"], f"{name}: too few persons approved")

    def _used(self, leaf: dict[str, Any], opened: dict[str, bytes]) -> None:
        asked, call = self._approvals.get(leaf["body"]["approval"]), f"call {leaf['call_id']}"
        if asked is None:
            self._result.unchecked.append(f"whether {call} was approved: the approval's request is not here")
            return
        need(asked["approved"], f"{call} was made without enough signatures, or with ones that were used before")
        asked["approved"] = False
        done, agreed = [(one["body"]["tool"], one["body"]["definition"], one["run_id"]) for one in (leaf, asked)]
        need(done == agreed, f"{call} is not the one that was approved")
        need(leaf["ts"] < asked["body"]["expires_us"], f"{call} was made after its approval had lapsed")
        if asked["arguments"] is not None and "request" in opened:
            same = parsed(opened["request"], "a request")["digest"] == asked["arguments"]
            need(same, f"{call} was made with other arguments than were approved")

    def _action(self, body: dict[str, Any], content: bytes) -> str:
        text, said = content.decode(), parsed(content, "an action")
        need(text.startswith('{"arguments":'), "the opened action is not as it is written")
        _, end = json.JSONDecoder().raw_decode(text, 13)
        arguments = hashlib.sha256(text[13:end].encode()).hexdigest()
        names = ("origin", "nonce", "tool", "definition", "run", "revision", "requested_us", "expires_us")
        requirements = [{name: one[name] for name in ("id", "quorum", "roles")} for one in said["requirements"]]
        statement = {name: said[name] for name in names} | {"v": 1, "approval": said["id"]}
        statement |= {name: said["principal"][name] for name in ("issuer", "user", "agent")}
        statement |= {"arguments_sha256": arguments, "requirements": requirements}
        need(digest(statement).hex() == body["statement"], f"{said['id']}: the opened action is not what was signed")
        return arguments


def key_records(folder: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The records of the log's keys; that they are in the log is checked with all others."""
    for line in lines(folder / "records.jsonl"):
        leaf = parsed(line["leaf"], f"record {line['index']}")
        if leaf["type"] == "key":
            yield line["index"], leaf["body"]


def check_contents(folder: Path, vkeys: str, policy: Any = None) -> Result:
    """Everything that the log's signatures speak for, by one of the keys in ``vkeys``."""
    keys = trust.Keys(vkeys.split() or [""], key_records(folder))
    size, root = keys.open((folder / "checkpoint").read_text("utf-8"))
    result = Result(str(keys.all[0]), size, base64.b64encode(root).decode())
    own, said = trust.policy((folder / "tlog-policy").read_text("utf-8")), (folder / "log.vkey").read_text("utf-8")
    need(said == f"{result.key}\n", "log.vkey does not name the log that the key is of")
    need(own.logs == [str(key) for key in keys.all if key.signs(size)], "tlog-policy does not name the keys in force")
    for key in keys.all:
        until = f"{key.until - 1} records; retired" if key.until else f"{size} records"
        result.signers.append(f"key {key.id.hex()} of the log: trees of {key.since} to {until}")
    witnessed(folder, keys, result, policy)
    check = Check(folder, result, root)
    for line in lines(folder / "records.jsonl"):
        check.record(line)
    need(check.payload is None, "payloads.jsonl: a payload is of a record that is not here")
    for path in folder.glob("policies/*"):
        fits = f"{hashlib.sha256(path.read_bytes()).hexdigest()}.json" == path.name
        need(fits and path.stem in result.revisions, f"policies/{path.name} is another policy, or decided nothing here")
        result.revisions.discard(path.stem)
    result.unchecked += [f"what policy revision {name} says: it is not here" for name in sorted(result.revisions)]
    return result


def witnessed(folder: Path, keys: Any, result: Result, policy: Any) -> None:
    """Up to where the witnesses of a policy have cosigned the log."""
    path, covered = folder / "witnessed.json", 0
    if policy is not None and path.exists():
        given = parsed(path.read_bytes(), path.name)
        tree = keys.open(given["checkpoint"])
        proof = [unbase64(each) for each in given["consistency"]]
        trust.check_extension(tree, (result.size, unbase64(result.root)), proof)
        found = trust.cosigners(given["checkpoint"], policy.witnesses.values())
        result.signers += [f"witness {name.split('+')[0]}: up to {tree[0]} records" for name in found]
        covered = tree[0] if policy.is_met(found) else 0
    asks = policy is not None and policy.quorum != "none"
    need(covered or not asks, "the policy's witnesses have not cosigned what is here")
    if covered < result.size or not asks:
        what = f"records from {covered} on, by witnesses" if asks else "anything by witnesses: no policy asks for them"
        result.unchecked.append(what)


def unchecked(result: Result) -> list[str]:
    """What nobody can conclude from the bundle."""
    return [
        "that the selection is complete: only runs called whole are; a key's revocation may have been left out",
        "what was logged after the checkpoint, and whether others were shown another log (compare checkpoints)",
        "times (the gateway's own clock), and whatever did not pass the gateway",
        "what is no part of the log: report.html, the manifest's words and other files of the exporter",
        *[f"what became of {len(result.open_calls)} calls: their ends are not here"][: len(result.open_calls)],
        *[f"{result.sealed} payloads that are not here (sealed, erased, left out): arguments, roles"][: result.sealed],
        *result.unchecked,
    ]


def checked(folder: Path, key: str | None, runs: list[str], policy: Path | None = None) -> Result:
    """All of it; the key is a file, a text, or None for the policy's or the one in the bundle."""
    manifest = check_files(folder)
    given = None if policy is None else trust.policy(policy.read_text("utf-8"))
    source = Path(key or folder / "log.vkey")
    text = source.read_text("utf-8") if source.is_file() else str(key)
    result = check_contents(folder, "\n".join(given.logs) if given and given.logs and key is None else text, given)
    result.came_along = key is None and not (given and given.logs)
    said = (manifest["origin"], manifest["size"], manifest["records"], manifest["payloads"])
    here = (result.key.split("+")[0], result.size, result.records, result.payloads)
    need(said == here, f"{MANIFEST} does not count what is here")
    chosen = manifest["selection"].get("run")
    run = result.runs.get(chosen)
    need(chosen is None or (run and run.first == 0 and not run.gaps), f"run {chosen}: records of it are missing")
    lacking = [name for name in runs if name not in result.runs or not result.runs[name].whole]
    need(not lacking, f"not here from start to end: run {', '.join(lacking)}")
    return result


def say(text: str, where: TextIO = sys.stdout) -> None:
    """Print what others may have written."""
    print("".join(char if " " <= char <= "~" else ascii(char)[1:-1] for char in text), file=where)


def main() -> int:
    """Check a bundle; the exit code."""
    parser = argparse.ArgumentParser(description="Checks an export bundle of an Ostiary audit log.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).resolve().parent)
    parser.add_argument("--vkey", help="the log's public key, from elsewhere: a file, or the text itself")
    parser.add_argument("--policy", type=Path, help="a C2SP tlog-policy, from elsewhere: keys, witnesses, quorum")
    parser.add_argument("--run", action="append", default=[], help="this run must be here from its start to its end")
    given = parser.parse_args()
    try:
        result = checked(given.folder, given.vkey, given.run, given.policy)
    except (Unsound, *MALFORMED) as error:
        say(f"NOT SOUND: {'' if isinstance(error, Unsound) else 'the bundle is malformed: '}{error}", sys.stderr)
        return 1
    say(f"sound: {result.records} records are in the log {result.key}, whose tree of {result.size} has {result.root}")
    say(f"  {result.payloads} opened payloads are as recorded; {result.signatures} reviewers' signatures are good")
    for line in [*result.signers, *(f"run {name}: {run}" for name, run in result.runs.items())]:
        say(f"  {line}")
    if result.came_along:
        say("NOT CHECKED: that the key is the log's: it came with the bundle. Give the one you have with --vkey")
    for line in unchecked(result):
        say(f"not checked: {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
