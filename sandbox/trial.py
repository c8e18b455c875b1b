"""The self-test of a sandbox: boxes that try what they may not. A capability counts as held only where one was seen.

The abuse suite of the tests tries far more; this is what each start can afford, some tenths of a second.
"""

import json
from dataclasses import dataclass, replace

from gateway.core.sandbox import BoxLimits, Capability, Ended, Outcome

LIMITS = BoxLimits(memory_mb=64, pids=8, cpu_ms=2_000, wall_ms=8_000, output_bytes=8_192, work_mb=2)

# Prints what is open that must not be.
_ISOLATION = """
import json, os
leaks = []
def tried(name, act):
    try:
        act()
    except OSError:
        return
    leaks.append(name)
for path in ("/etc/shadow", "/etc/passwd", "/root", "/home", "/var", "/run", "/sys"):
    tried(path, lambda: os.stat(path))
tried("/usr is writable", lambda: os.open("/usr/.ostiary", os.O_CREAT | os.O_WRONLY))
tried("/ is writable", lambda: os.open("/.ostiary", os.O_CREAT | os.O_WRONLY))
tried("the memory of process 1", lambda: os.open("/proc/1/mem", os.O_RDWR))
def fill(folder):
    for number in range(9):
        with open(f"{folder}/{number}", "wb") as file:
            file.write(bytes(1 << 20))
for folder in ("/work", "/tmp", "/dev/shm"):
    tried(f"{folder} is bottomless", lambda: fill(folder))
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines() if ":" in line)
if len([line for line in open("/proc/self/net/dev").read().splitlines() if ":" in line]) > 1:
    leaks.append("network interfaces")
if os.getuid() == 0 or status["NoNewPrivs"].strip() != "1" or int(status["CapEff"], 16):
    leaks.append("privileges")
if os.getpid() > 9 or len([name for name in os.listdir("/proc") if name.isdigit()]) > 3:
    leaks.append("processes")
if set(os.listdir("/proc/self/fd")) - {"0", "1", "2", "3"}:  # 3 is the listing itself
    leaks.append("descriptors")
if set(os.environ) - {"HOME", "PATH", "LANG", "PWD", "LC_CTYPE"}:
    leaks.append("environment")
print(json.dumps({"leaks": leaks}))
"""
_FILTER = """
import socket
try:
    socket.socket(socket.AF_INET)
except OSError as error:
    print(error.errno)
"""
_MEMORY = "kept = [b'x' * (1 << 20) for _ in range(512)]"
_PIDS = """
import os, time
for made in range(64):
    try:
        if os.fork() == 0:
            time.sleep(20)
    except OSError:
        print("refused", made, flush=True)
        break
"""
_CPU = "while True: pass"
# More than the memory of its box holds, were they counted; some 60 MB of the machine's where they are not.
_INODES = "import os\nfor number in range(60_000): os.mknod(str(number))"
_REFUSED_FAMILY = b"97"  # EAFNOSUPPORT


@dataclass(frozen=True, slots=True)
class Trial:
    """One box of the self-test.

    Attributes:
        capability: what it is about; None for the isolation that every box needs.
        code: what it runs.
        limits: its caps.
    """

    capability: Capability | None
    code: str
    limits: BoxLimits


def trials(groups: frozenset[str], *, filtered: bool) -> list[Trial]:
    """What to try where control groups of these names, and perhaps a filter, are said to be in force.

    Without a group for it, processes are still capped for each box by a resource limit in its own user namespace.
    Memory and processor time are capped for each process only then, which is no cap of the box: not tried, not claimed.
    How many files there are is capped by the memory they take, and by nothing where that is not counted.
    """
    wanted = [Trial(None, _ISOLATION, LIMITS), Trial(Capability.PIDS, _PIDS, LIMITS)]
    if filtered:
        wanted.append(Trial(Capability.SECCOMP, _FILTER, LIMITS))
    if Capability.MEMORY in groups:
        wanted.append(Trial(Capability.MEMORY, _MEMORY, LIMITS))
        wanted.append(Trial(Capability.INODES, _INODES, replace(LIMITS, memory_mb=32, cpu_ms=6_000)))
    if Capability.CPU in groups:
        wanted.append(Trial(Capability.CPU, _CPU, replace(LIMITS, cpu_ms=100)))
    return wanted


def held(trial: Trial, outcome: Outcome) -> bool:
    """Whether the cap was seen to bite."""
    match trial.capability:
        case Capability.MEMORY | Capability.INODES:
            return outcome.ended is Ended.MEMORY
        case Capability.CPU:
            return outcome.ended is Ended.CPU
        case Capability.PIDS:
            return outcome.ended is Ended.PIDS or _refused_in_time(outcome.stdout)
        case Capability.SECCOMP:
            return outcome.stdout.strip() == _REFUSED_FAMILY
    return False


def leaks(outcome: Outcome) -> list[str]:
    """What the isolation trial found open; a trial that says nothing counts as a leak."""
    try:
        found = json.loads(outcome.stdout)["leaks"]
    except (ValueError, KeyError, TypeError):
        words = outcome.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        return [f"the self-test did not end well ({outcome.ended}: {words[:200]})"]
    return [str(leak) for leak in found]


def _refused_in_time(stdout: bytes) -> bool:
    words = stdout.split()
    return words[:1] == [b"refused"] and int(words[1]) <= LIMITS.pids
