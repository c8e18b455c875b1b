"""A child process must not read the gateway's secrets out of ``/proc``."""

import os
import subprocess
import sys

import pytest

# Becomes an ordinary user first, as root may read everything; that clears the flag, so it is set again before the test.
PROBE = """
import ctypes, os, sys
from gateway.serving.hardening import hide_memory
os.setuid(65534)
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
assert sys.argv[1] == "open" or hide_memory()
child = os.fork()
if child == 0:
    try:
        found = open(f"/proc/{os.getppid()}/environ", "rb").read()
    except PermissionError:
        os._exit(1)
    os._exit(0 if b"s3cr3t" in found else 2)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc as Linux has it")
@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become an ordinary user in the test")
@pytest.mark.parametrize(("mode", "code"), [("hidden", 1), ("open", 0)])
def test_a_child_cannot_read_the_gateways_environment(mode: str, code: int) -> None:
    """The same probe succeeds where the process did not hide, so it is a probe."""
    command = [sys.executable, "-c", PROBE, mode]
    done = subprocess.run(command, env={"KEY": "s3cr3t", "PATH": "/usr/bin:/bin"}, check=False, timeout=60)
    assert done.returncode == code
