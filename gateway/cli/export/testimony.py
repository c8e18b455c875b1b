"""What an export says of the log's keys and witnesses: a trust policy, and what witnesses have cosigned."""

from dataclasses import replace
from pathlib import Path

from gateway.cli.export.collecting import Head, is_missing
from gateway.cli.export.packing import write_json
from gateway.cli.reach import Line
from gateway.cli.screen import Failed
from gateway.core.cosigning import TrustError, TrustPolicy
from gateway.core.tlog import Checkpoint, NoteError, VerifierKey, split_note


def witnessed(line: Line) -> str | None:
    """The newest checkpoint that a quorum of witnesses has cosigned, or None where there is none.

    Raises:
        Failed: the gateway refuses.
    """
    try:
        return line.text("/v1/audit/log/witnessed")
    except Failed as error:
        if is_missing(error):
            return None
        raise


def write_trust(folder: Path, line: Line, head: Head, seen: str | None) -> None:
    """Write the policy of the exported tree, and what witnesses have cosigned of it.

    Raises:
        Failed: the gateway refuses, or answers something else.
    """
    try:
        policy = TrustPolicy.parse(line.text("/v1/audit/policy"))
        keys = [
            VerifierKey.parse(key["vkey"])
            for key in line.get("/v1/audit/keys")["keys"]
            if key["since_size"] <= head.size and (key.get("until_size") is None or head.size < key["until_size"])
        ]
        (folder / "tlog-policy").write_text(replace(policy, logs=tuple(keys)).text, "utf-8")
        if seen is not None:
            old = Checkpoint.parse(split_note(seen)[0]).size
            proof = line.get("/v1/audit/log/consistency", {"old": old, "new": head.size})["proof"]
            write_json(folder / "witnessed.json", {"checkpoint": seen, "consistency": proof})
    except (TrustError, NoteError, KeyError, TypeError):
        raise Failed("the gateway's word on its keys is not one", "use the same version of both") from None
