"""Boxes of stdio servers: what this host holds is found out once, and what settings ask for must fit together."""

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from anyio import to_thread

from gateway.core.sandbox import NO_SANDBOX, Capabilities, Enclosure
from gateway.findings import Finding
from gateway.parts import nearby
from gateway.settings import GatewaySettings, SettingsError
from gateway.settings.upstreams import EnclosureSection, McpUpstream
from sandbox.runner import BwrapRunner, Options
from sandbox.served import Boxes, Tools

# What every box shows.
_SYSTEM = tuple(Path(place) for place in ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"))
_OPEN = "not confined: it may do whatever the gateway's user may, and read its keys; give it [upstreams.{}.sandbox]"


@dataclass(frozen=True, slots=True)
class Confining:
    """Puts servers into boxes.

    Attributes:
        options: how boxes are made.
        tools: what they are made with; None = nothing was looked for, or found.
        seen: what this host was seen to hold; None = no server is to be in one.
        writes: the folders that each server's box may write.
    """

    options: Options
    tools: Tools | None
    seen: Capabilities | None
    writes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def boxing(self, name: str, upstream: McpUpstream, path: str) -> Boxes | None:
        """The box of a server by command, whose programs are looked for in ``path``; None = it has none.

        Raises:
            SettingsError: its program, or its working folder, would not be there.
        """
        if upstream.sandbox is None or self.seen is None:
            return None
        unseen = list(_unseen(upstream, upstream.sandbox, path))
        if unseen:
            raise SettingsError([f"upstreams.{name}.sandbox.read: {problem}" for problem in unseen])
        others = tuple(path for other, paths in self.writes.items() if other != name for path in paths)
        return Boxes(self.options, self.tools, self.seen, enclosure(upstream.sandbox), others)


def confined(settings: GatewaySettings) -> Mapping[str, EnclosureSection | None]:
    """The servers by command, with their boxes as configured."""
    found = {name: one for name, one in settings.upstreams.items() if isinstance(one, McpUpstream) and one.command}
    return {name: one.sandbox for name, one in found.items()}


def wants_box(settings: GatewaySettings) -> bool:
    """Whether any server is to be in a box."""
    return any(section is not None for section in confined(settings).values())


async def tried(settings: GatewaySettings, runner: BwrapRunner) -> Confining:
    """Find out what this host holds, with a runner that is not started."""
    if not wants_box(settings):
        return Confining(runner.options, None, None)
    tools = await to_thread.run_sync(Tools.found, runner.options)
    async with runner:
        boxes = {name: enclosure(section) for name, section in confined(settings).items() if section is not None}
        writes = {name: box.write for name, box in boxes.items()}
        return Confining(runner.options, tools, await runner.probe(), writes)


def enclosure(section: EnclosureSection) -> Enclosure:
    """The box as the sandbox takes it."""
    return Enclosure(
        read=tuple(str(path) for path in section.read),
        write=tuple(str(path) for path in section.write),
        network=section.network,
        memory_mb=section.memory_mb,
        pids=section.pids,
        open_files=section.open_files,
        tmp_mb=section.tmp_mb,
        accept_missing=tuple(str(name) for name in section.accept_missing),
    )


def findings(settings: GatewaySettings, seen: Capabilities) -> Iterator[Finding]:
    """What operators are told of each server by command."""
    for name, section in confined(settings).items():
        part = f"confinement:{name}"
        if section is None:
            yield Finding(part, ok=True, text=f"{_OPEN.format(name)} (docs/sandbox.md)")
        elif lost := enclosure(section).lacks(seen):
            yield Finding(
                part, ok=False, text=f"not started: this host cannot hold {', '.join(lost)}", fix=_fix(name, lost, seen)
            )
        else:
            yield Finding(part, ok=True, text=_summary(section))
        if section is not None and section.network:
            yield Finding(f"{part}:network", ok=True, text=f"it reaches {nearby.reached(settings)} (docs/sandbox.md)")


def warnings(settings: GatewaySettings) -> Iterator[str]:
    """A line for each server by command that has no box, or one with the host's network."""
    for name, section in confined(settings).items():
        if section is None:
            yield f"{name} is {_OPEN.format(name)}."
        elif section.network:
            yield f"{name} has the host's network: it reaches {nearby.reached(settings)}."


def _fix(name: str, lost: tuple[str, ...], seen: Capabilities) -> str:
    why = "; ".join(dict.fromkeys(seen.fixes[one] for one in lost if one in seen.fixes))
    if NO_SANDBOX in lost:
        return f"{why}; or leave [upstreams.{name}.sandbox] out: it is then not confined"
    names = ", ".join(f'"{one}"' for one in seen.missing)
    return f"{why}; or accept it: [upstreams.{name}.sandbox] accept_missing = [{names}]"


def _summary(section: EnclosureSection) -> str:
    folders = [*(f"reads {path}" for path in section.read), *(f"writes {path}" for path in section.write)]
    accepted = f"; need not cap {', '.join(section.accept_missing)}" if section.accept_missing else ""
    network = "the host's network, unfiltered" if section.network else "no network"
    return f"in a box: {', '.join(folders) or 'no folders'}, {network}{accepted}"


def _unseen(upstream: McpUpstream, section: EnclosureSection, path: str) -> Iterator[str]:
    shown = (*_SYSTEM, *section.read, *section.write)
    found = shutil.which(upstream.command[0], path=path) if upstream.command else None
    if found is not None and not _shows(shown, Path(found)):
        yield f"its program {found} is not in the box: name its folder"
    if upstream.cwd is not None and not any(upstream.cwd.is_relative_to(place) for place in shown):
        yield f"its cwd {upstream.cwd} is not in the box: name it here or in write"


def _shows(shown: tuple[Path, ...], program: Path) -> bool:
    # A link that leads out of the box leads nowhere.
    real = [Path(os.path.realpath(place)) for place in shown]
    by_name = any(program.is_relative_to(place) for place in shown)
    return by_name and any(Path(os.path.realpath(program)).is_relative_to(place) for place in real)
