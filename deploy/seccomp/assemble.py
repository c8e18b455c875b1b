"""From the policy of system calls to classic BPF: a search tree over call numbers, then checks of single arguments.

Our own assembler rather than libseccomp's, so that the same policy gives the same bytes whatever version is installed,
and so that an argument that does not fit can answer with an error of its own.
"""

import errno
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Numbers = Mapping[str, int]
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _JEQ, _JGE, _JSET, _JUMP, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x05, 0x06
_NR, _ARCH, _ARGS = 0, 4, 16
_FAR = 255
_TOP = 2**32
# The kernel's names of the machines (AUDIT_ARCH_*), both little-endian with 64 bits.
ARCHES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# Numbers from here on are x32's, another way to the same calls.
_X32 = 0x40000000

Code = list[tuple[int, int, int, int]]


class PolicyError(ValueError):
    """The policy contradicts itself or names a call that is nowhere known."""


@dataclass(frozen=True, slots=True)
class _Range:
    first: int
    leaf: tuple[tuple[int, int, int, int], ...]


def assemble(policy: Mapping[str, Any], numbers: Numbers, arch: str) -> bytes:
    """The program for ``arch`` as ``struct sock_filter`` records; calls that the machine does not have are left out.

    Raises:
        PolicyError: a call stands in the policy twice.
    """
    leaves = _leaves(policy, numbers)
    default = (_answer(_ERRNO | errno.ENOSYS),)
    ranges = [_Range(0, default)]
    for number in sorted(leaves):
        if ranges[-1].first == number:
            ranges.pop()
        if not ranges or ranges[-1].leaf != leaves[number]:
            ranges.append(_Range(number, leaves[number]))
        ranges.append(_Range(number + 1, default))
    if arch == "x86_64":
        ranges.append(_Range(_X32, (_answer(_KILL),)))
    head: Code = [(_LOAD, 0, 0, _ARCH), (_JEQ, 1, 0, ARCHES[arch]), _answer(_KILL), (_LOAD, 0, 0, _NR)]
    return b"".join(struct.pack("<HBBI", *line) for line in [*head, *_tree(_joined(ranges))])


def _leaves(policy: Mapping[str, Any], numbers: Numbers) -> dict[int, tuple[tuple[int, int, int, int], ...]]:
    found: dict[int, tuple[tuple[int, int, int, int], ...]] = {}
    for name, leaf in _said(policy):
        number = numbers.get(name)
        if number is None:
            continue
        if number in found:
            raise PolicyError(f"{name} stands in the policy twice")
        found[number] = tuple(leaf)
    return found


def _said(policy: Mapping[str, Any]) -> Iterator[tuple[str, Code]]:
    for name in policy["allowed"]:
        yield name, [_answer(_ALLOW)]
    for name in policy["refused"]:
        yield name, [_answer(_ERRNO | errno.EPERM)]
    for rule in policy["only"]:
        yield rule["syscall"], _only(rule)
    for rule in policy["without"]:
        yield rule["syscall"], _without(rule)


def _only(rule: Mapping[str, Any]) -> Code:
    values: Sequence[int] = rule["values"]
    # Each comparison jumps over the later ones and the refusal.
    tests: Code = [(_JEQ, len(values) - place, 0, value) for place, value in enumerate(values)]
    return [_argument(rule), *tests, _refusal(rule), _answer(_ALLOW)]


def _without(rule: Mapping[str, Any]) -> Code:
    bits = sum(set(rule["bits"]))
    return [_argument(rule), (_JSET, 0, 1, bits), _refusal(rule), _answer(_ALLOW)]


def _argument(rule: Mapping[str, Any]) -> tuple[int, int, int, int]:
    # The low half of the 64-bit argument: the kernel reads no more of these.
    return _LOAD, 0, 0, _ARGS + 8 * int(rule["argument"])


def _refusal(rule: Mapping[str, Any]) -> tuple[int, int, int, int]:
    return _answer(_ERRNO | int(getattr(errno, rule["otherwise"])))


def _answer(action: int) -> tuple[int, int, int, int]:
    return _RETURN, 0, 0, action


def _joined(ranges: Sequence[_Range]) -> list[_Range]:
    joined: list[_Range] = []
    for one in ranges:
        if not joined or joined[-1].leaf != one.leaf:
            joined.append(one)
    return joined


def _tree(ranges: Sequence[_Range]) -> Code:
    if len(ranges) == 1:
        return list(ranges[0].leaf)
    middle = len(ranges) // 2
    below, above = _tree(ranges[:middle]), _tree(ranges[middle:])
    if len(below) <= _FAR:
        return [(_JGE, len(below), 0, ranges[middle].first), *below, *above]
    return [(_JGE, 0, 1, ranges[middle].first), (_JUMP, 0, 0, len(below)), *below, *above]


def answer(program: bytes, arch: int, number: int, arguments: Sequence[int] = ()) -> int:
    """What ``program`` answers to a call, as the kernel would compute it: for tests, on any machine.

    Raises:
        PolicyError: the program does anything but load, compare, jump and return.
    """
    data = struct.pack("<IIQ6Q", number % _TOP, arch, 0, *[*arguments, *[0] * (6 - len(arguments))])
    code = list(struct.iter_unpack("<HBBI", program))
    accumulator = place = 0
    while True:
        operation, yes, no, value = code[place]
        place += 1
        match operation:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, value)
            case 0x06:
                return int(value)
            case 0x05:
                place += value
            case 0x15 | 0x35 | 0x45:
                place += yes if _holds(operation, accumulator, value) else no
            case _:
                raise PolicyError(f"operation {operation:#x}")


def _holds(operation: int, accumulator: int, value: int) -> bool:
    if operation == _JEQ:
        return accumulator == value
    return accumulator >= value if operation == _JGE else bool(accumulator & value)
