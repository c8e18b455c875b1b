"""``conformance_caller.py SOCKET URL``: what the conformance suite starts; the client itself is in the test's process.

So the suite can start one for each scenario, and none of them has to load anything.
"""

import json
import os
import socket
import sys

_GIVEN = ("MCP_CONFORMANCE_SCENARIO", "MCP_CONFORMANCE_CONTEXT")


def main(path: str, url: str) -> int:
    """Say what is to be done, and end as the client ends."""
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(path)
        scenario, context = (os.environ.get(name, "") for name in _GIVEN)
        line.sendall(json.dumps({"url": url, "scenario": scenario, "context": context or "{}"}).encode() + b"\n")
        said = line.makefile("rb").readline()
    sys.stderr.write(said.decode())
    return 0 if said == b"done\n" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
