"""The demo's attacker: it holds the agent's own token, has read what vendors write, and tries six things.

One JSON line each, as the agent tells its steps: {"step", "surface", "tool", "outcome", "said", "call_id"}.
"""

import asyncio
import json
import os
import re

import httpx2
from agent import HEADERS, URL, by_rest, transfer

# What code in the box would do to get at credentials: look for the vault, its sockets and keys, and for a way out.
PROBE = """
import glob, json, os, socket

def tried(action):
    try:
        return str(action())
    except OSError as error:
        return type(error).__name__

def dial(family, address):
    with socket.socket(family) as probe:
        probe.settimeout(1)
        probe.connect(address)
        return "connected"

found = [path for pattern in ("/tmp/**/*", "/run/**/*", "/var/**/*", "/root/*", "/home/*/*", "/etc/shadow")
         for path in glob.glob(pattern, recursive=True)]
print(json.dumps({
    "files": found,
    "vault": tried(lambda: dial(socket.AF_UNIX, VAULT)),
    "network": tried(lambda: dial(socket.AF_INET, ("127.0.0.1", 8200))),
    "environment": sorted(set(os.environ) - {"HOME", "PATH", "PWD", "LANG", "LC_CTYPE"}),
    "uid": os.getuid(),
}))
"""


async def main() -> None:
    """Try all six."""
    paid = transfer(400_000, "PO-1001")
    async with httpx2.AsyncClient(headers=HEADERS, timeout=90) as http:
        await forged()
        await by_rest(http, "changed arguments after approval", "pay.transfer", {**paid, "amount": 400_001})
        await by_rest(http, "replayed approval", "pay.transfer", paid)
        await by_rest(http, "SQL text in an argument", "erp.find_order", {"number": "x' OR '1'='1"})
        await injected(http)
        if os.environ.get("SANDBOX"):
            code = PROBE.replace("VAULT", repr(os.environ["VAULT_SOCKET"]))
            await by_rest(http, "reading the vault from the sandbox", "code.run", {"code": code})


async def forged() -> None:
    """A token with one character changed."""
    token = HEADERS["Authorization"]
    broken = token[:-6] + ("A" if token[-6] != "A" else "B") + token[-5:]
    async with httpx2.AsyncClient(headers={"Authorization": broken}) as http:
        await by_rest(http, "forged token", "erp.find_order", {"number": "PO-1001"})


async def injected(http: httpx2.AsyncClient) -> None:
    """Obey what stands in a vendor's note, as an agent would that cannot tell words from orders."""
    answer = await http.post(f"{URL}/v1/tools/vendors.lookup/call", json={"arguments": {"id": "V-9"}})
    note = json.dumps(answer.json())
    iban = re.search(r"to (GB[0-9A-Z]+) at once", note)
    await by_rest(
        http, "prompt-injected recipient", "pay.transfer", transfer(400_000, "PO-1001", iban[1] if iban else "?")
    )


if __name__ == "__main__":
    asyncio.run(main())
