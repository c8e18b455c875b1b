"""The policy worker: a child process that evaluates Rego and can do nothing else.

Run by path as ``python -I worker.py MEMORY_BYTES GUARD_SECONDS PAGE`` with an empty environment and one socket as its
standard input and output; it imports nothing of the gateway, so it stays small. The first frame is the bundle, each
further one a question; every frame is answered in order. ``PAGE`` is the descriptor of a page of shared memory, where
each question is noted before it is begun with (``progress.py``).

Frames, integers big-endian::

    frame     u32 length, payload
    bundle    JSON {"modules": [[name, text], ...], "data": "JSON text", "guards": [rule, ...], "parts": [part, ...]};
              answered by JSON {"engine"} or {"error"}
    question  u64 number, u16 length of decision id, decision id, u16 count, per input: u8 length of its key, key,
              u32 length, JSON
    reply     u64 number, 32 bytes SHA-256 of the question's payload, per input: u8 status, u32 guards that do not hold
              (bit n: the one at n), u32 length, bytes (64 KiB at most)

The digest covers number, decision id and inputs: a reply cannot be taken for that of another question.

A part is what one package says: {"package", "sets": [name, ...], "guard": its place in ``guards`` or -1, "open" and
"shut": whether all inputs of one key get the same from it, where its guard holds and where it does not, "modules": the
names of those its rules can reach}. Such a part is evaluated once for each key. Without a key, or without parts,
``data.gateway.main.decision`` is evaluated; with them the answer is made of the same sets, by the same names.
"""

import os
import resource
import sys

# Before the engine is loaded: its allocator reserves a gigabyte at start, which would put that much beyond the limit.
if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]), int(sys.argv[1])))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

import hashlib
import json
import mmap
import re
import signal
import struct
import time
from typing import Any

import regorus

ANSWERED, UNDEFINED, FAULTED, TOO_LARGE = 0, 1, 2, 3
RULE = "data.gateway.main.decision"
SETS = ("allow", "deny", "hint", "oblige", "require")
# What the engine's JSON calls say of an undefined rule; a rule with this very value reads as undefined, too: closed.
_UNDEFINED = '"<undefined>"'
_PANICKED = 70
# Rules in any other package below gateway would stand there and never be asked.
_PACKAGE = re.compile(r"data\.(gateway\.(main|policies\.[^.]+|lib\..+)|(?!gateway(\.|$)).+)")
_BLOCK = 1 << 16
_FAULT_BYTES = 500
_RESULT_BYTES = 64 * 1024
# Replies that leave together while the next question is already here: a wake-up of the gateway costs more than a reply.
_TOGETHER, _HOLD_S = 8, 0.002
_encode = json.JSONEncoder(ensure_ascii=False).encode
_SIZE, _AT = struct.Struct(">I"), struct.Struct("=Qd")
# What is kept by key: so many, each within so many characters.
_MOST_KEPT, _LONGEST_KEPT = 2048, 4096


class _Refused(Exception):
    """The bundle cannot be served; the message is for the operator."""


class _Undefined(Exception):
    """A rule that the contract needs has no value."""


def main() -> None:
    """Serve questions until the other end closes."""
    frames, replies, guard = _Frames(), _Replies(), _Guard(float(sys.argv[2]))
    page = _page(int(sys.argv[3]))
    policy: _Policy | None = None
    while (payload := frames.next()) is not None:
        now = time.monotonic()
        guard.rearm(now)
        if policy is None:
            policy, answer = _load(payload)
        else:
            _AT.pack_into(page, 0, int.from_bytes(payload[:8], "big"), now)
            answer = _answer(policy, payload)
        replies.add(answer, now)
        if not frames.has_next or replies.is_due:
            replies.send()


def _page(descriptor: int) -> mmap.mmap:
    page = mmap.mmap(descriptor, mmap.PAGESIZE)
    os.close(descriptor)  # the mapping has one of its own
    return page


class _Guard:
    # An orphan in an endless loop has nobody to kill it; the default action of SIGVTALRM does, after so much processor
    # time. Waiting takes none, so the timer is set anew only now and then: a system call a question would be felt.
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._set_at = float("-inf")

    def rearm(self, now: float) -> None:
        if now - self._set_at > self._seconds / 4:
            signal.setitimer(signal.ITIMER_VIRTUAL, self._seconds)
            self._set_at = now


class _Frames:
    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def has_next(self) -> bool:
        """Whether the next frame is here, whole."""
        arrived = len(self._buffer) - _SIZE.size
        return arrived >= 0 and arrived >= _SIZE.unpack_from(self._buffer)[0]

    def next(self) -> bytes | None:
        size = self._take(_SIZE.size)
        return None if size is None else self._take(_SIZE.unpack(size)[0])

    def _take(self, size: int) -> bytes | None:
        while len(self._buffer) < size:
            block = os.read(0, _BLOCK)
            if not block:
                return None
            self._buffer += block
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken


class _Replies:
    """Frames not yet sent."""

    def __init__(self) -> None:
        self._held: list[bytes] = []
        self._since = 0.0

    @property
    def is_due(self) -> bool:
        """Whether they may be held no longer."""
        return len(self._held) >= _TOGETHER or time.monotonic() - self._since > _HOLD_S

    def add(self, answer: bytes, now: float) -> None:
        if not self._held:
            self._since = now
        self._held.append(_SIZE.pack(len(answer)) + answer)

    def send(self) -> None:
        _send(b"".join(self._held))
        self._held.clear()


def _send(frames: bytes) -> None:
    view = memoryview(frames)
    while view:
        view = view[os.write(1, view) :]


class _Part:
    """What one package says, asked of an engine that has nothing but the modules it can reach.

    An engine takes a few microseconds for each module it has, however small a part of them is asked for: a call that
    concerns one package would pay for all the others.
    """

    def __init__(self, engine: Any, said: dict[str, Any]) -> None:
        self.package: str = said["package"]
        self.sets: list[str] = said["sets"]
        self.guard: int = said["guard"]
        self.open: bool = said["open"]
        self.shut: bool = said["shut"]
        self.name = json.dumps(self.package) + ":"
        self._engine = engine
        self._unread: str | None = None
        names = [f"data.gateway.policies.{self.package}.{name}" for name in self.sets]
        self._rule = names[0]
        if len(names) > 1:
            # One rule for all sets: the engine keeps nothing from one question to the next, so what they have in common
            # would be evaluated for each of them. No bundle has packages or data there.
            engine.add_policy("parts.rego", f"package gateway.parts\n\nsaid := [{', '.join(names)}]\n")
            self._rule = "data.gateway.parts.said"

    def begin(self, document: str) -> None:
        """From now on it is about ``document``, which is read when there is a question."""
        self._unread = document

    def idle(self, guard: str) -> bool:
        """Whether the guard does not hold."""
        return _is_idle(self._reading(), guard)

    def said(self) -> list[str]:
        """The members of each of its sets."""
        value = _value(self._reading(), self._rule)
        return [value] if len(self.sets) == 1 else [_encode(members) for members in json.loads(value)]

    def _reading(self) -> Any:
        """Its engine, with the document."""
        if self._unread is not None:
            self._engine.set_input_json(self._unread)
            self._unread = None
        return self._engine


def _value(engine: Any, rule: str) -> str:
    value: str = engine.eval_rule_as_json(rule)
    if value == _UNDEFINED:
        raise _Undefined
    return value


def _is_idle(engine: Any, guard: str) -> bool:
    """Whether a guard does not hold; one that cannot be told counts as holding."""
    try:
        return bool(engine.eval_rule_as_json(guard) == _UNDEFINED)
    except RuntimeError:
        return False


class _Policy:
    """A loaded bundle."""

    def __init__(self, engine: Any, guards: list[str], parts: list[_Part]) -> None:
        """``engine`` has the whole of it, and is asked where nothing is kept."""
        self._engine = engine
        self._parts = sorted(parts, key=lambda part: part.package)
        self._guarded = [(part, guards[part.guard], 1 << part.guard) for part in parts if part.guard >= 0]
        # Guards that read nothing in which inputs of one key differ.
        self._steady = sum(bit for part, _, bit in self._guarded if part.shut)
        self._kept: dict[bytes, tuple[int, dict[int, list[str]]]] = {}

    def decide(self, key: bytes, document: str) -> tuple[str, int]:
        """The decision on ``document``, and the guards that do not hold; ``key`` is empty where nothing is kept."""
        if not (key and self._parts):
            return self._whole(document)
        for part in self._parts:
            part.begin(document)
        idle, known = self._kept.get(key, (0, {}))
        idle |= self._idle(self._steady if known else 0)
        said = {at: known.get(at) or self._said(part, idle) for at, part in enumerate(self._parts)}
        if not known:
            self._keep(key, idle, said)
        return self._joined(said), idle

    def _whole(self, document: str) -> tuple[str, int]:
        # One reading of the document: a hidden tool's is longer than that of a name of no tool, and read once for each
        # package, the difference could be told from outside.
        self._engine.set_input_json(document)
        value = _value(self._engine, RULE)
        return value, sum(bit for _, guard, bit in self._guarded if _is_idle(self._engine, guard))

    def _said(self, part: _Part, idle: int) -> list[str]:
        # Where a guard does not hold, none of the sets it guards has a member.
        return ["[]"] * len(part.sets) if part.guard >= 0 and idle >> part.guard & 1 else part.said()

    def _joined(self, said: dict[int, list[str]]) -> str:
        members: dict[str, list[str]] = {name: [] for name in SETS}
        for at, part in enumerate(self._parts):
            for name, value in zip(part.sets, said[at], strict=True):
                members[name].append(part.name + value)
        return "{" + ",".join(f'"{name}":{{{",".join(values)}}}' for name, values in members.items()) + "}"

    def _keep(self, key: bytes, idle: int, said: dict[int, list[str]]) -> None:
        kept = {}
        for at, part in enumerate(self._parts):
            is_shut = part.guard >= 0 and idle >> part.guard & 1
            # A part whose guard may hold for the next input of this key is looked at again.
            if part.open or (is_shut and part.shut):
                kept[at] = said[at]
        if sum(len(value) for values in kept.values() for value in values) <= _LONGEST_KEPT:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            self._kept[key] = (idle & self._steady, kept)

    def _idle(self, skip: int) -> int:
        return sum(bit for part, guard, bit in self._guarded if not skip & bit and part.idle(guard))


def _load(payload: bytes) -> tuple[_Policy | None, bytes]:
    try:
        policy, version = load(json.loads(payload))
    # The engine reports what is wrong with a bundle as RuntimeError; a panic is no Exception and ends the process.
    except (RuntimeError, _Refused) as error:
        return None, json.dumps({"error": _words(error)}).encode()
    return policy, json.dumps({"engine": f"regorus/{version}"}).encode()


def load(bundle: dict[str, Any]) -> tuple[_Policy, str]:
    """The bundle of a first frame, ready to decide, and the engine's version.

    Raises:
        RuntimeError: the engine refuses it.
    """
    engine, version = _engine(bundle["modules"], bundle["data"])
    texts = dict(bundle["modules"])
    bare = regorus.Engine()
    bare.add_data_json(bundle["data"])
    parts = []
    for part in bundle["parts"]:
        own = bare.clone()  # the data is shared
        for name in part["modules"]:
            own.add_policy(name, texts[name])
        parts.append(_Part(own, part))
    return _Policy(engine, bundle["guards"], parts), version


def _engine(modules: list[list[str]], data: str) -> tuple[Any, str]:
    engine = regorus.Engine()
    owners: dict[str, str] = {}
    for name, text in modules:
        package = engine.add_policy(name, text)
        # This engine silently skips the rules of a package's second file, so that a deny would vanish.
        if package in owners:
            raise _Refused(f"{name}: package {package[5:]} is already in {owners[package]}; one file for each package")
        if not _PACKAGE.fullmatch(package):
            raise _Refused(f"{name}: package {package[5:]} would be ignored; decisions read gateway.policies.NAME only")
        owners[package] = name
    if "data.gateway.main" not in owners:
        raise _Refused("no file holds package gateway.main")
    _check_data(json.loads(data), owners)
    engine.add_data_json(data)
    version = json.loads(engine.eval_query_as_json("opa.runtime()"))["result"][0]["expressions"][0]["value"]
    return engine, version["regorus-version"]


def _check_data(data: Any, owners: dict[str, str]) -> None:
    # Data where packages stand would replace their rules, or speak as a package of its own and allow.
    gateway = data.get("gateway")
    for name in ("main", "policies", "lib", "parts"):
        if isinstance(gateway, dict) and name in gateway:
            raise _Refused(f"data files may not set data.gateway.{name}: it belongs to packages")
    for package, owner in owners.items():
        node = data
        for step in package.split(".")[1:]:
            node = node.get(step) if isinstance(node, dict) else None
        if node is not None:
            raise _Refused(f"{owner}: data files hold values at the path of package {package[5:]}")


def _answer(policy: _Policy, payload: bytes) -> bytes:
    number, size = struct.unpack_from(">QH", payload)
    at = 10 + size
    (count,) = struct.unpack_from(">H", payload, at)
    at += 2
    parts = [struct.pack(">Q", number), hashlib.sha256(payload).digest()]
    for _ in range(count):
        key = payload[at + 1 : at + 1 + payload[at]]
        at += 1 + len(key)
        (length,) = struct.unpack_from(">I", payload, at)
        at += 4
        status, idle, value = _evaluate(policy, key, payload[at : at + length].decode())
        at += length
        parts += [struct.pack(">BII", status, idle, len(value)), value]
    return b"".join(parts)


def _evaluate(policy: _Policy, key: bytes, document: str) -> tuple[int, int, bytes]:
    try:
        answer, idle = policy.decide(key, document)
    except _Undefined:
        return UNDEFINED, 0, b""
    except RuntimeError as error:
        return FAULTED, 0, _place(error).encode()
    except BaseException:  # noqa: BLE001  a panic of the engine is a BaseException; its state cannot be trusted after it
        os._exit(_PANICKED)
    value = answer.encode() if len(answer) <= _RESULT_BYTES else b""
    # A policy that floods its answer is stopped here: the gateway never reads it.
    return (ANSWERED, idle, value) if 0 < len(value) <= _RESULT_BYTES else (TOO_LARGE, 0, b"")


def _place(error: Exception) -> str:
    # Only where it happened: the rest of the message may quote the caller's arguments.
    found = re.search(r"--> (\S+:\d+:\d+)", str(error))
    return found[1][:_FAULT_BYTES] if found else ""


def _words(error: Exception) -> str:
    return str(error).split("Stack backtrace:", maxsplit=1)[0].strip()[:_FAULT_BYTES]


if __name__ == "__main__":
    main()
