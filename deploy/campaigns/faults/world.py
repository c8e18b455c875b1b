"""The folder of a run: configuration, catalogue, keys, database, credential, and how the upstream is to behave."""

import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Final

from deploy.campaigns.faults import peer
from deploy.campaigns.faults.invariant import CREDENTIAL as KEY
from deploy.campaigns.faults.plan import PAY_LIMIT, TIMEOUT_S, Peer, Plan
from deploy.campaigns.faults.strikes import CREDENTIAL, DATABASE
from deploy.campaigns.faults.upstream import MCP_PATH
from gateway.adapters.identity import create_key

HERE: Final = Path(__file__).resolve().parent
_ENTRIES: Final = """
create table entries (
  marker text not null,
  tool text not null,
  at text not null default (strftime('%Y-%m-%d %H:%M:%f', 'now'))
)
"""


def prepare(plan: Plan, folder: Path, port: int) -> None:
    """Write the folder of a run whose upstream listens on ``port``."""
    (folder / "state").mkdir(mode=0o700)
    create_key(folder / "state" / "keys" / "issuer.pem")
    marks = {"@PORT@": str(port), "@PEER@": _peer(plan, folder, port)}
    marks |= {"@PAY_LIMIT@": str(PAY_LIMIT), "@TIMEOUT_S@": str(TIMEOUT_S)}
    for name in ("gateway.toml", "catalogue.toml"):
        text = (HERE / name).read_text("utf-8")
        for mark, value in marks.items():
            text = text.replace(mark, value)
        (folder / name).write_text(text, "utf-8")
    (folder / CREDENTIAL).write_text(KEY, "ascii")
    (folder / peer.MODES).write_text(json.dumps({call.marker: call.mode for call in plan.calls}), "ascii")
    with closing(sqlite3.connect(folder / DATABASE)) as db:
        db.execute(_ENTRIES)


def _peer(plan: Plan, folder: Path, port: int) -> str:
    if plan.peer is Peer.PIPES:
        return f"command = {json.dumps([sys.executable, '-I', '-S', str(peer.__file__), str(folder)])}"
    return f'url = "http://127.0.0.1:{port}{MCP_PATH}"'
