"""The system call filters: the committed programs are those the policy makes, and answer as it says."""

import errno
import tomllib

import pytest

from deploy.seccomp import generate
from deploy.seccomp.assemble import ARCHES, PolicyError, answer, assemble

ALLOW, KILL = 0x7FFF0000, 0x80000000
HIGH = 1 << 32


def refusal(number: int) -> int:
    """The answer that makes a call fail with the error ``number``."""
    return 0x00050000 | number


def asked(arch: str, name: str, *arguments: int) -> int:
    """What the committed program of ``arch`` answers to a call by name."""
    program = (generate.FOLDER / f"{arch}.bpf").read_bytes()
    return answer(program, ARCHES[arch], generate.numbers()[arch][name], arguments)


@pytest.mark.parametrize("arch", ARCHES)
def test_the_committed_programs_are_what_the_policy_makes(arch: str) -> None:
    """Policy and call numbers, assembled anew, give the same bytes."""
    assert (generate.FOLDER / f"{arch}.bpf").read_bytes() == generate.program(arch)
    assert (generate.FOLDER / f"{arch}.network.bpf").read_bytes() == generate.program(arch, network=True)


@pytest.mark.parametrize("arch", ARCHES)
def test_the_network_is_the_only_difference(arch: str) -> None:
    """The filter of servers that have the network lets sockets of the internet be made, and is the same otherwise."""
    strict, open_ = generate.program(arch), generate.program(arch, network=True)
    kept = generate.numbers()[arch]

    def answers(program: bytes, number: int) -> list[int]:
        return [answer(program, ARCHES[arch], number, (argument, argument)) for argument in range(64)]

    differ = {name for name, number in kept.items() if answers(strict, number) != answers(open_, number)}
    assert differ == {"socket"}
    allowed = {family for family in range(256) if answer(open_, ARCHES[arch], kept["socket"], (family,)) == ALLOW}
    assert allowed == {1, 2, 10}


@pytest.mark.parametrize("arch", ARCHES)
def test_call_numbers_are_those_of_libseccomp(arch: str) -> None:
    """Every kept number is the one the installed libseccomp knows, where it knows the call."""
    try:
        known = {name: generate.looked_up(name, arch) for name in generate.names()}
    except (RuntimeError, OSError, ImportError) as error:
        pytest.skip(reason=f"libseccomp is not here: {error}")
    kept = generate.numbers()[arch]
    assert {name: number for name, number in known.items() if number is not None} == {
        name: kept[name] for name, number in known.items() if number is not None
    }
    assert set(kept) <= set(generate.names())


@pytest.mark.parametrize("arch", ARCHES)
def test_what_is_allowed_and_refused(arch: str) -> None:
    """Each call of the policy is answered as it says; whatever is not named does not exist."""
    policy, kept = generate.policy(), generate.numbers()[arch]
    for name in set(policy["allowed"]) & set(kept):
        assert asked(arch, name) == ALLOW, name
    for name in set(policy["refused"]) & set(kept):
        assert asked(arch, name) == refusal(errno.EPERM), name
    program = generate.program(arch)
    named = set(kept.values())
    top = 600 if arch == "x86_64" else 2000
    for number in set(range(top)) - named:
        assert answer(program, ARCHES[arch], number) == refusal(errno.ENOSYS), number
    assert {"mount", "bpf", "keyctl", "ptrace", "unshare", "userfaultfd", "perf_event_open", "io_uring_setup"} <= set(
        policy["refused"]
    )
    assert "clone3" not in generate.names()


@pytest.mark.parametrize("arch", ARCHES)
def test_arguments_are_judged_by_what_the_kernel_reads(arch: str) -> None:
    """Only the low 32 bits count: neither garbage above them nor a sign gets a socket or an ioctl through."""
    families = {family for family in range(256) if asked(arch, "socket", family) == ALLOW}
    assert families == {1}
    assert asked(arch, "socket", HIGH + 40) == asked(arch, "socketpair", 2) == refusal(errno.EAFNOSUPPORT)
    for request in (0x5412, HIGH | 0x5412, 0x541C, 0x5403):
        assert asked(arch, "ioctl", 0, request) == refusal(errno.ENOTTY)
    assert asked(arch, "ioctl", 0, 0x5401) == asked(arch, "ioctl", 0, HIGH | 0x5401) == ALLOW
    assert asked(arch, "clone", 0x3D0F00) == ALLOW  # a thread
    for bit in (0x80, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert asked(arch, "clone", bit | 17) == refusal(errno.EPERM)
    assert asked(arch, "prctl", 22) == refusal(errno.EPERM)  # another filter
    assert asked(arch, "prctl", 1) == refusal(errno.EPERM)  # no longer die with the supervisor
    assert asked(arch, "prctl", 15) == ALLOW


def test_foreign_calls_kill() -> None:
    """A call of another architecture, or of x32, ends the process: numbers mean other things there."""
    native = generate.program("x86_64")
    assert answer(native, 0x40000003, 11) == KILL  # i386
    assert answer(native, ARCHES["x86_64"], 0x40000000 | 1) == KILL
    assert answer(native, ARCHES["x86_64"], -1) == KILL
    assert answer(generate.program("aarch64"), 0x40000028, 11) == KILL  # 32-bit ARM


def test_a_policy_that_contradicts_itself_is_refused() -> None:
    """The same call twice is no policy."""
    text = 'allowed = ["read"]\nrefused = ["read"]\nonly = []\nwithout = []'
    with pytest.raises(PolicyError, match="read"):
        assemble(tomllib.loads(text), {"read": 0}, "x86_64")


def test_far_jumps_are_made_in_two_steps() -> None:
    """A filter whose halves are further apart than a jump reaches still answers right."""
    names = {f"call{number}": number * 2 for number in range(400)}
    policy = {"allowed": list(names), "refused": [], "only": [], "without": []}
    program = assemble(policy, names, "aarch64")
    assert all(answer(program, ARCHES["aarch64"], number) == ALLOW for number in names.values())
    assert all(answer(program, ARCHES["aarch64"], number + 1) == refusal(errno.ENOSYS) for number in names.values())
