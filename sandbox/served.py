"""Boxes of programs that go on, as the gateway starts them: what is wanted is checked, and handed to a keeper."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from gateway.core.sandbox import Capabilities, Capability, Enclosure, NoBox, Program
from sandbox import host
from sandbox.host import NoSandbox
from sandbox.runner import Options

# Found beside this very file, whatever else is called sandbox on the machine.
_ROOT = str(Path(__file__).resolve().parents[1])
_KEEPER = f"import sys; sys.path.insert(0, {_ROOT!r}); from sandbox.keeper import main; sys.exit(main(sys.argv[1:]))"
# A box has its own of these, or none: the host's show its processes, and through them the folders of each.
_SPECIAL = (Path("/proc"), Path("/sys"), Path("/dev"))
_GROUPED = (Capability.MEMORY, Capability.PIDS, Capability.CPU)


@dataclass(frozen=True, slots=True)
class Tools:
    """What this host makes boxes with.

    Attributes:
        bwrap: the bubblewrap binary.
        python: the interpreter of the stage.
        stage: source text of ``stage.py``.
        filters: the system call filters, without and with a network; None = there is none for this machine.
    """

    bwrap: str
    python: str
    stage: str
    filters: tuple[str | None, str | None]

    @classmethod
    def found(cls, options: Options) -> "Tools | None":
        """They are looked for once, as that starts a program and waits for it; None = there is no sandbox here."""
        try:
            bwrap, python = host.bwrap(options.bwrap), host.python(options.python)
        except NoSandbox:
            return None
        filters = [host.call_filter(network=network) for network in (False, True)]
        closed, open_ = (None if one is None else one.path for one in filters)
        return cls(bwrap, python, Path(str(files("sandbox"))).joinpath("stage.py").read_text("utf-8"), (closed, open_))


@dataclass(frozen=True, slots=True)
class Boxes:
    """The ``Boxing`` port: boxes of one enclosure.

    Attributes:
        options: how boxes are made; of ``hidden`` folders nothing is seen, wherever they lie.
        tools: what they are made with.
        seen: what this host was seen to hold when it was tried.
        enclosure: what the program may see and use.
        others: folders that the boxes of others may write.
    """

    options: Options
    tools: Tools | None
    seen: Capabilities
    enclosure: Enclosure
    others: tuple[str, ...] = ()

    @contextmanager
    def boxed(self, program: Program) -> Iterator[Program]:
        """See the Protocol."""
        wanted = self._wanted(program)
        descriptor = os.memfd_create("wanted", os.MFD_CLOEXEC)
        try:
            with os.fdopen(descriptor, "wb", closefd=False) as stream:
                stream.write(json.dumps(wanted).encode())
            argv = (sys.executable, "-I", "-c", _KEEPER, str(descriptor))
            yield Program(argv, {}, "/", (descriptor, *program.inherited))
        finally:
            os.close(descriptor)

    def _wanted(self, program: Program) -> dict[str, Any]:
        wish, seen, tools = self.enclosure, self.seen, self.tools
        if lost := wish.lacks(seen):
            raise NoBox("sandbox_degraded", f"this host's sandbox cannot hold: {', '.join(lost)}")
        places = _places(wish, self.options.hidden, self.others)
        if tools is None:
            raise NoBox("sandbox_degraded", "this host has no sandbox")
        return {
            "gateway": os.getpid(),
            "bwrap": tools.bwrap,
            "python": tools.python,
            "stage": tools.stage,
            "filter": tools.filters[wish.network],
            "groups": self.options.groups,
            "needs": [name for name in _GROUPED if seen.held.get(name, "").startswith("cgroup")],
            "first_uid": self.options.first_uid,
            "argv": list(program.argv),
            "env": dict(program.env),
            "cwd": program.cwd,
            "inherited": list(program.inherited),
            "network": wish.network,
            "memory_mb": wish.memory_mb,
            "pids": wish.pids,
            "open_files": wish.open_files,
            "tmp_mb": wish.tmp_mb,
            **places,
        }


def _places(wish: Enclosure, hidden: tuple[Path, ...], others: tuple[str, ...]) -> dict[str, Any]:
    # Judged by where they lead now, at each start: what a box may write it may also replace by a link.
    read = [(_real(shown), Path(shown)) for shown in wish.read]
    write = [(_real(shown), Path(shown)) for shown in wish.write]
    written = [*write, *((_real(shown), Path(shown)) for shown in others)]
    closed = [folder.resolve() for folder in hidden]
    for real, shown in (*read, *write):
        if real == Path("/") or any(_below(real, place) for place in _SPECIAL):
            raise NoBox("box_shows_system", f"{shown} leads to {real}, of which a box has its own, or nothing")
        if any(_below(real, folder) or _below(folder, real) for folder in closed if (real, shown) in write):
            raise NoBox("box_shows_secrets", f"{shown} must not be written: the gateway's own folder is there")
        if any(_below(real, folder) for folder in closed):
            raise NoBox("box_shows_secrets", f"{shown} must not be read: it is in the gateway's own folder")
        for other, name in written:
            if other != real and (_below(real, other) or _below(shown, name)):
                raise NoBox("box_in_box", f"{shown} lies in {name}, where a server could replace it by a link")
    covered = [shown / folder.relative_to(real) for real, shown in read for folder in closed if _below(folder, real)]
    below_usr = [folder for folder in closed if _below(folder, Path("/usr")) and folder.is_dir()]
    return {
        "read": [(str(real), str(shown)) for real, shown in read],
        "write": [(str(real), str(shown)) for real, shown in write],
        "hidden": sorted({str(folder) for folder in (*covered, *below_usr)}),
    }


def _real(shown: str) -> Path:
    real = Path(os.path.realpath(shown))
    # Behind links in a circle Python may go on by the names alone: where it comes to can be a link again.
    if any(os.path.islink(place) for place in (real, *real.parents)):  # noqa: PTH114 -- the other raises where it may not look
        raise NoBox("box_failed", f"{shown} leads nowhere")
    return real


def _below(path: Path, folder: Path) -> bool:
    return path.is_relative_to(folder)
