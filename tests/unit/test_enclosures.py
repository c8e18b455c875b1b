"""Boxes of programs that go on, as the core knows them: what a host must hold, and why nothing is started."""

import pytest

from gateway.core.sandbox import Capabilities, Enclosure, NoBox
from sandbox import served_profile
from sandbox.served_profile import Descriptors, Served

Names = tuple[str, ...]


@pytest.mark.parametrize(
    ("missing", "accepted", "lost"),
    [
        ((), (), ()),
        (("memory", "cpu"), ("memory",), ("cpu",)),
        (("memory",), ("memory", "seccomp"), ()),
    ],
)
def test_a_cap_may_be_missing_only_by_name(
    missing: tuple[str, ...], accepted: tuple[str, ...], lost: tuple[str, ...]
) -> None:
    """What a host does not hold, and the settings do not accept."""
    assert Enclosure(accept_missing=accepted).lacks(Capabilities("bwrap 1", missing=missing)) == lost


def test_no_sandbox_is_accepted_by_nobody() -> None:
    """Where no box can be made there is none, whatever the settings accept."""
    none = Capabilities(None, missing=("sandbox",))
    assert Enclosure(accept_missing=("sandbox", "memory")).lacks(none) == ("sandbox",)


def test_why_nothing_is_started_has_a_name() -> None:
    """The cause is for callers, the text for operators."""
    error = NoBox("sandbox_degraded", "this host cannot hold: memory")
    assert (error.cause, str(error)) == ("sandbox_degraded", "this host cannot hold: memory")


def served(*, network: bool = False) -> list[str]:
    """Bubblewrap's options for a box of two folders."""
    box = Served(
        python="/usr/bin/python3",
        stage="stage",
        argv=["server"],
        env={"TOKEN": "x"},
        cwd=None,
        read=[["--ro-bind", "/real", "/shown"]],
        write=[["--bind", "/own", "/own"]],
        hidden=["/shown/state"],
        network=network,
        tmp_bytes=7,
    )
    return served_profile.options(box, Descriptors(70, 71, 72))


def place(words: list[str], *some: str) -> int:
    """Where these words stand one after the other."""
    return next(at for at in range(len(words)) if words[at : at + len(some)] == list(some))


def test_folders_lie_over_temporary_files_and_under_what_is_hidden() -> None:
    """The order of mounts: a folder below /tmp is seen, what is hidden in it is not, and then nothing more is made."""
    words = served()
    order = [
        place(words, "--size", "7", "--perms", "0700", "--tmpfs", "/tmp"),
        place(words, "--ro-bind", "/real", "/shown"),
        place(words, "--bind", "/own", "/own"),
        place(words, "--tmpfs", "/shown/state", "--remount-ro", "/shown/state"),
        place(words, "--remount-ro", "/"),
    ]
    assert order == sorted(order)
    assert place(words, "--setenv", "TOKEN", "x") > place(words, "--clearenv")


def test_a_network_and_what_it_needs_is_there_where_it_is_asked_for() -> None:
    """Names and authorities come with it, and nothing else changes."""
    closed, open_ = served(), served(network=True)
    assert set(closed) - set(open_) == {"--unshare-net"}
    assert {"/etc/resolv.conf", "/etc/ssl"} <= set(open_) - set(closed)


def test_limits_stand_in_for_control_groups() -> None:
    """Of processes and of data, where no group holds them; never of address space."""
    assert served_profile.limits(64, None, None)[-1] == "RLIMIT_NOFILE=64"
    assert served_profile.limits(64, 9, 1 << 20)[-2:] == ["RLIMIT_NPROC=9", f"RLIMIT_DATA={1 << 20}"]
    assert not [limit for limit in served_profile.limits(64, 9, 1) if limit.startswith("RLIMIT_AS")]
