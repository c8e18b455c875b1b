"""A hostile stdio server tries to leave its box; without the box, the same attempts find what is open."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from connectors.mcp.process import Command, Ears, running
from gateway.core.errors import OutcomeUnknown, Unavailable
from gateway.core.sandbox import Capabilities, Enclosure, NoBox, Program
from sandbox.runner import Options
from sandbox.served import Tools
from tests.boxes import marked, status
from tests.contract.test_mcp_connector_stdio import until
from tests.gateways import ROOT
from tests.processes import FIXTURES
from tests.stdio_boxes import OWNER, PYTHON, accepting, boxes, hostile, seen, writable

SECRET = "hunter2-of-the-servers-own"
# What a gateway with one server in a box does; it waits to be killed.
GATEWAY = """
import anyio, sys
from tests.stdio_boxes import boxes, hostile, seen

async def main():
    async with hostile(boxes(await seen()) if sys.argv[1] == "boxed" else None) as up:
        await up.call("orphan")
        print(up.mark, flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


@pytest.fixture(scope="module")
def found() -> Capabilities:
    """What this host holds, tried once."""
    return anyio.run(seen)


@pytest.fixture
def aims(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """What a server must not reach: keys, folders, processes, sockets in files and without, ports."""
    keys = tmp_path / "state" / "keys"
    keys.mkdir(parents=True)
    (keys / "issuer.pem").write_text("secret")
    abstract, named = f"@ostiary-test-{os.getpid()}", str(tmp_path / "state" / "admin.sock")
    with ExitStack() as stack:
        for address in (abstract, named):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.bind(address.replace("@", "\0", 1))
            sock.listen()
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        other = stack.enter_context(subprocess.Popen(["sleep", "600"], env={"SECRET": "of another process"}))
        stack.callback(other.kill)
        yield {
            "paths": [str(keys / "issuer.pem"), str(tmp_path), str(ROOT / "README.md"), "/etc/passwd", "/tmp"],
            "pids": [os.getpid(), other.pid],
            "sockets": [abstract, named],
            "port": tcp.getsockname()[1],
        }


def left_by(mark: str, folder: str) -> bool:
    """Whether a server wrote into a folder of the host; what it wrote is taken away."""
    left = Path(folder, f"written-by-{mark}")
    found = left.exists()
    left.unlink(missing_ok=True)
    return found


def beside_its_own(found: list[str]) -> set[str]:
    """What is open of a server in a box but its temporary folder, through which the way to its program may lead."""
    return {name for name in found if not name.startswith("write /tmp")}


def command_lines() -> list[bytes]:
    """Those of all processes of the host."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found.append(path.read_bytes())
    return found


def started(way: str) -> tuple[subprocess.Popen[str], str]:
    """A gateway whose server has left a process behind, and the name of the server's processes."""
    gateway = subprocess.Popen([sys.executable, "-c", GATEWAY, way], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert gateway.stdout is not None
    with gateway.stdout as said:
        return gateway, said.readline().strip()


@pytest.mark.requirement("TOOL-7")
async def test_a_hostile_server_reaches_nothing(found: Capabilities, aims: dict[str, Any]) -> None:
    """Neither keys, folders, other processes nor sockets; its temporary folder is its own and empty."""
    async with hostile(boxes(found)) as up:
        open_ = await up.call("look", **aims)
        assert "write /tmp" in open_
        assert not beside_its_own(open_)
        given = await up.call("facts")
        way = ROOT.relative_to("/tmp").parts[:1] if ROOT.is_relative_to("/tmp") else ()
        assert set(given["tmp"]) == {f"written-by-{up.mark}", *way}
    assert not any(left_by(up.mark, folder) for folder in ("/tmp", str(ROOT)))


async def test_without_a_box_the_attempts_find_what_is_open(aims: dict[str, Any]) -> None:
    """The same server, unconfined, reads keys and environments, and connects: so the attempts do bite."""
    async with hostile(None) as up:
        open_ = await up.call("look", **aims)
    assert [left_by(up.mark, folder) for folder in ("/tmp", str(ROOT))] == [True, True]
    assert {f"read {aims['paths'][0]}", f"environment {aims['pids'][1]}", "network", "own server"} <= set(open_)
    assert {f"socket {address}" for address in aims["sockets"]} <= set(open_)


async def test_the_probes_for_code_find_nothing_in_a_servers_box(found: Capabilities, tmp_path: Path) -> None:
    """Kernel calls, devices, privileges, descriptors, the first process: as closed as in a box for code."""
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "issuer.pem").write_text("secret")
    given = {"paths": [str(keys / "issuer.pem"), str(tmp_path), str(ROOT)], "pids": [os.getpid()]}
    words = [PYTHON, "-I", "-c", (FIXTURES / "abuse.py").read_text()]
    with boxes(found, accepting(found, read=(), open_files=256)).boxed(Program(words)) as program:
        done = await anyio.run_process(
            program.argv, input=json.dumps(given).encode(), env={}, cwd="/", check=False, pass_fds=program.inherited
        )
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout) == []


async def test_it_has_what_its_settings_name(found: Capabilities, tmp_path: Path) -> None:
    """Folders to read and to write, under its own variables; what it may read it may not write."""
    shown, own = tmp_path / "shown", writable(tmp_path / "own")
    shown.mkdir()
    (shown / "file").write_text("given")
    (shown / "file").chmod(0o644)
    enclosure = accepting(found, read=(str(FIXTURES), str(shown)), write=(str(own),))
    async with hostile(boxes(found, enclosure), env={"ONLY": "this"}, cwd=own) as up:
        assert await up.call("write", path=str(own / "made")) == up.mark
        aims = {"paths": [str(shown / "file"), str(own)], "pids": [], "sockets": [], "port": 9}
        assert await up.call("look", **aims) == [f"read {shown}/file", f"write {own}"]
        given = await up.call("facts")
    assert given["cwd"] == str(own)
    assert given["env"].keys() - {"LC_CTYPE", "PWD"} == {"ONLY", "HOME", "LANG"}
    assert (own / "made").read_text() == up.mark
    if os.geteuid() == 0:
        assert (own / "made").stat().st_uid == OWNER


async def test_its_secrets_are_on_no_command_line(found: Capabilities) -> None:
    """A variable of its own reaches it, and nobody who lists the machine's processes."""
    async with hostile(boxes(found), env={"SECRET": SECRET}) as up:
        assert (await up.call("facts"))["env"]["SECRET"] == SECRET
        lines = command_lines()
        assert any(up.mark.encode() in line for line in lines)
        assert not [line for line in lines if SECRET.encode() in line]
    assert f"{up.mark} complains of {SECRET}" in up.log


async def test_a_network_is_given_by_name_only(found: Capabilities, aims: dict[str, Any]) -> None:
    """With it, a server reaches ports and abstract sockets of the host; files and processes stay closed."""
    async with hostile(boxes(found, accepting(found, network=True))) as up:
        open_ = await up.call("look", **aims)
    assert beside_its_own(open_) == {"network", "own server", f"socket {aims['sockets'][0]}"}


@pytest.mark.parametrize("groups", [True, False])
async def test_a_fork_bomb_ends_at_its_cap(found: Capabilities, groups: bool) -> None:
    """Processes are capped by a control group, or by a limit inside the box; the server goes on."""
    cap = accepting(found, pids=12, accept_missing=("memory", "cpu", "inodes", "pids", "seccomp"))
    held = {"pids": found.held.get("pids", "rlimit") if groups else "rlimit", "seccomp": "bpf"}
    boxing = boxes(replace(found, held=held), cap, Options(groups=groups))
    async with hostile(boxing) as up:
        assert 0 < await up.call("fork", most=64) < 12
        assert 0 < await up.call("fork", most=64) < 12


async def test_memory_over_its_cap_ends_the_server_only(found: Capabilities) -> None:
    """The call has an unknown outcome, and the next one finds a new process."""
    async with hostile(boxes(found, accepting(found, memory_mb=64, accept_missing=("cpu", "inodes")))) as up:
        if "memory" in found.missing:
            await until(lambda: any("cannot hold: memory" in line for line in up.log))
            return
        await up.connector.ping()
        first = up.connector.pid
        with pytest.raises(OutcomeUnknown):
            await up.call("fill", mib=256)
        await until(lambda: up.connector.pid not in {None, first})
        assert await up.call("fill", mib=8) == 8


@pytest.mark.parametrize("way", ["boxed", "plain"])
async def test_nothing_outlives_the_connector(way: str, request: pytest.FixtureRequest) -> None:
    """A process that left its group and session is gone with the box; without one, the server at least is."""
    found = request.getfixturevalue("found") if way == "boxed" else None
    async with hostile(None if found is None else boxes(found)) as up:
        await up.call("orphan")
        assert len(marked(up.mark)) == 2
    left = marked(up.mark)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert len(left) == (0 if way == "boxed" else 1)


@pytest.mark.parametrize("way", ["boxed", "plain"])
async def test_nothing_outlives_a_gateway_that_is_killed(way: str, found: Capabilities) -> None:
    """The kernel ends the server with the gateway, and with the box all that the server had started."""
    gateway, mark = await anyio.to_thread.run_sync(started, way)
    before = marked(mark)
    assert len(before) == 2, found
    keepers = {int(status(pid)["PPid"][0]) for pid in before} - {1}
    gateway.kill()
    gateway.wait()
    await until(lambda: len(marked(mark)) == (0 if way == "boxed" else 1))
    await until(lambda: way == "plain" or not any(command.exists() for command in map(proc, keepers)))
    for pid in marked(mark):
        os.kill(pid, signal.SIGKILL)


def proc(pid: int) -> Path:
    """A process's folder."""
    return Path("/proc", str(pid))


async def test_a_server_is_asked_to_go_first(found: Capabilities) -> None:
    """The end of its input ends it by itself, and SIGTERM reaches one that does not heed that."""
    words = "import signal, sys, time\nsignal.signal(15, lambda *_: (print('asked', flush=True), sys.exit(0)))\n"
    said: list[bytes] = []
    ears = Ears(said.append, lambda _: None, lambda: None)
    command = Command([PYTHON, "-c", words + "print('up', flush=True)\ntime.sleep(600)"], boxing=boxes(found))
    async with running(command, ears):
        await until(lambda: said == [b"up"])
    assert said == [b"up", b"asked"]


async def test_a_host_that_cannot_hold_a_cap_starts_nothing(found: Capabilities) -> None:
    """Unless its settings accept exactly that; who asks is told why."""
    lacking = replace(found, missing=("memory",), held={**found.held, "memory": ""})
    strict = accepting(found, accept_missing=())
    async with hostile(boxes(lacking, strict)) as up:
        with pytest.raises(Unavailable) as caught:
            await up.connector.ping()
        assert caught.value.cause_code == "sandbox_degraded"
        assert any("cannot hold: memory" in line for line in up.log)
        assert not marked(up.mark)
    async with hostile(boxes(lacking, replace(strict, accept_missing=("memory", *found.missing)))) as up:
        await up.connector.ping()


async def test_a_cap_that_is_lost_later_starts_nothing(found: Capabilities) -> None:
    """What the host held when it was tried must still be held at each start."""
    promised = replace(found, held={"memory": "cgroup2"}, missing=())
    async with hostile(boxes(promised, accepting(found), Options(groups=False))) as up:
        await until(lambda: any("can no longer cap: memory" in line for line in up.log))
        with pytest.raises(Unavailable) as caught:
            await up.connector.discover()
        assert caught.value.cause_code == "box_failed"
        assert not marked(up.mark)


async def test_a_host_without_bubblewrap_starts_nothing(tmp_path: Path) -> None:
    """Nor does it start a server outside of a box."""
    options = Options(bwrap=tmp_path / "nowhere")
    assert Tools.found(options) is None
    for able, cause in (
        (Capabilities("bwrap 1"), "has no sandbox"),
        (Capabilities(None, missing=("sandbox",)), "cannot"),
    ):
        with pytest.raises(NoBox, match=cause), boxes(able, Enclosure(), options).boxed(Program([PYTHON])):
            pass


@pytest.mark.parametrize(
    ("read", "write", "cause"),
    [
        ([], ["."], "box_shows_secrets"),
        ([], ["state/keys"], "box_shows_secrets"),
        (["state"], [], "box_shows_secrets"),
        (["link"], [], "box_shows_secrets"),
        (["own/deep"], ["own"], "box_in_box"),
        ([], ["own", "own/deep"], "box_in_box"),
        (["way"], ["own"], "box_in_box"),
    ],
)
def test_no_box_shows_the_gateways_own_folder(tmp_path: Path, read: list[str], write: list[str], cause: str) -> None:
    """Nor can a server lead the next start there: what lies in a folder it writes is given to nobody."""
    (tmp_path / "state" / "keys").mkdir(parents=True)
    (tmp_path / "own" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "state")
    (tmp_path / "way").symlink_to(tmp_path / "own" / "deep")
    places = [tuple(str(tmp_path / place) for place in some) for some in (read, write)]
    able = Capabilities("bwrap 1")
    boxing = boxes(able, Enclosure(read=places[0], write=places[1]), Options(hidden=(tmp_path / "state",)))
    with pytest.raises(NoBox) as caught, boxing.boxed(Program([PYTHON])):
        pass
    assert caught.value.cause == cause


@pytest.mark.parametrize("leads_to", ["/", "/proc", "/proc/self/root", "/dev", "/sys/kernel"])
@pytest.mark.parametrize("is_read", [True, False])
def test_no_box_shows_what_a_box_has_its_own_of(tmp_path: Path, leads_to: str, is_read: bool) -> None:
    """Settings refuse these by name; a link that leads there by now, which a server may have made, is refused, too."""
    (tmp_path / "link").symlink_to(leads_to)
    there = (str(tmp_path / "link"),)
    enclosure = Enclosure(read=there) if is_read else Enclosure(write=there)
    with pytest.raises(NoBox) as caught, boxes(Capabilities("bwrap 1"), enclosure).boxed(Program([PYTHON])):
        pass
    assert caught.value.cause == "box_shows_system"


@pytest.mark.requirement("TOOL-7")
def test_what_another_server_may_write_leads_nobody_astray(tmp_path: Path) -> None:
    """It made a link to somewhere else of what lies in its folder: a server that reads that is not started."""
    own = tmp_path / "own"
    (own / "deep").mkdir(parents=True)
    able = boxes(Capabilities("bwrap 1"), Enclosure(read=(str(own / "deep"),)))
    (own / "deep").rmdir()
    (own / "deep").symlink_to(tmp_path)
    with pytest.raises(NoBox) as caught, replace(able, others=(str(own),)).boxed(Program([PYTHON])):
        pass
    assert caught.value.cause == "box_in_box"


def test_links_in_a_circle_are_a_fault_of_the_box(tmp_path: Path) -> None:
    """Of a kind that the server's keeper knows: another server that made them ends no more than this one's starts."""
    (tmp_path / "link").symlink_to(tmp_path / "link")
    boxing = boxes(Capabilities("bwrap 1"), Enclosure(read=(str(tmp_path / "link"),)))
    with pytest.raises(NoBox, match="leads nowhere"), boxing.boxed(Program([PYTHON])):
        pass


@pytest.mark.parametrize("before", ["loop", "missing/../loop"])
@pytest.mark.parametrize("behind", [".", "../alias", "../alias/keys"])
def test_nothing_is_shown_that_stands_behind_links_in_a_circle(tmp_path: Path, before: str, behind: str) -> None:
    """Such a path is worked out by its names alone: the link it comes to would be taken for a folder, and followed."""
    (tmp_path / "state" / "keys").mkdir(parents=True)
    (tmp_path / "alias").symlink_to(tmp_path / "state")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "link").symlink_to(f"{before}/{behind}")
    enclosure = Enclosure(read=(str(tmp_path / "link"),))
    boxing = boxes(Capabilities("bwrap 1"), enclosure, Options(hidden=(tmp_path / "state",)))
    with pytest.raises(NoBox), boxing.boxed(Program([PYTHON])):
        pass


async def test_a_state_folder_in_a_folder_to_read_is_hidden(found: Capabilities, aims: dict[str, Any]) -> None:
    """A project may be read with the gateway's folder in it: an empty one stands in its place."""
    key, folder = aims["paths"][:2]
    os.chmod(folder, 0o755)  # noqa: PTH101 - the test is no reader of files
    Path(folder, "open").write_text("x")  # noqa: ASYNC240 - a word on a local disk
    options = Options(hidden=(Path(folder) / "state",))
    enclosure = accepting(found, read=(str(FIXTURES), folder))
    async with hostile(boxes(found, enclosure, options)) as up:
        wanted = {"paths": [key, f"{folder}/open"], "pids": [], "sockets": aims["sockets"][1:], "port": 9}
        assert await up.call("look", **wanted) == [f"read {folder}/open"]


async def test_folders_that_are_not_there_are_said(found: Capabilities, tmp_path: Path) -> None:
    """A box that cannot be made starts nothing, and the log says which folder it is."""
    async with hostile(boxes(found, accepting(found, read=(str(tmp_path / "nowhere"),)))) as up:
        await until(lambda: any("nowhere" in line for line in up.log))
        with pytest.raises(Unavailable) as caught:
            await up.connector.ping()
        assert caught.value.cause_code == "box_failed"


async def test_as_root_folders_to_write_belong_to_somebody(found: Capabilities, tmp_path: Path) -> None:
    """A server of a root gateway is nobody, or the owner of what it writes, and never root."""
    if os.geteuid() != 0:
        pytest.skip(reason="only root gives boxes user ids of their own")
    async with hostile(boxes(found, accepting(found, write=(str(tmp_path),)))) as up:
        await until(lambda: any("not root: chown" in line for line in up.log))
    async with hostile(boxes(found)) as up:
        await up.connector.ping()
        assert 60_600 <= int(status(marked(up.mark)[0])["Uid"][0]) < 60_664


async def test_a_program_that_is_not_in_the_box_is_said(found: Capabilities) -> None:
    """It cannot be started, and the cause is that, not a box."""
    async with hostile(boxes(found, accepting(found, read=()))) as up:
        await until(lambda: any("ended" in line for line in up.log))
    ears = Ears(lambda _: None, up.log.append, lambda: None)
    async with running(Command(["/nowhere/server"], boxing=boxes(found)), ears) as child:
        await child.gone.wait()
        await until(lambda: child.start_fault == "cannot_start")
    assert any("/nowhere/server cannot be started in the box" in line for line in up.log)
