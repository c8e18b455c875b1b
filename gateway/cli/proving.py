"""``ostiary audit prove``, and what ``verify --proof`` says of the file it writes."""

import base64
from pathlib import Path
from typing import Any

import click
import msgspec

from gateway.cli.reach import Reach, reaching
from gateway.cli.screen import Failed, answer, shown
from gateway.core.cosigning import NO_QUORUM, TrustPolicy, cosignatures
from gateway.core.tiles import ProofError, check_proof, read_proof
from gateway.core.tlog import NoteError, VerifierKey

_PATIENCE_S = 60.0
_FIXES = {
    "known key": "after a rotation it takes the key in force, or --policy: `ostiary audit keys list`",
    "quorum": "only cosignatures in the file itself count; check the whole log with `ostiary audit verify --policy`",
}


@click.command()
@click.argument("index", type=click.IntRange(0))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="File to write [INDEX.tlog-proof]."
)
@reaching
def prove(reach: Reach, index: int, output: Path | None) -> None:
    """Write the proof that the record INDEX is in the log, with the record in it.

    Whoever has the log's public key checks it with nothing else: `ostiary audit verify --proof FILE --vkey KEY`, or any
    tool that reads C2SP tlog-proof files. INDEX is what `ostiary audit search` shows.
    """
    with reach.line(_PATIENCE_S) as line:
        text = line.text(f"/v1/audit/log/proofs/{index}")
    path = output or Path(f"{index}.tlog-proof")
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise Failed(f"{path} cannot be written: {error.strerror}", "name another file with --output") from None
    answer({"index": index, "file": str(path)}, [f"written: {path}"])


def proven(text: str, vkeys: str, policy: TrustPolicy | None = None) -> tuple[dict[str, Any], list[str]]:
    """What a proof file proves under one of the log's public keys, for machines and for people.

    Args:
        text: the file.
        vkeys: keys, one a line; one of them must have signed.
        policy: whose quorum of witnesses must have cosigned the proof's checkpoint, or None.

    Raises:
        Failed: nothing.
    """
    try:
        proof = read_proof(text)
        keys = [VerifierKey.parse(vkey) for vkey in vkeys.split()]
        checkpoint = check_proof(proof, *keys)
        unchecked = _witnessed(proof.checkpoint, policy)
        record = msgspec.json.decode(proof.entry)
    except (ProofError, NoteError, msgspec.DecodeError, UnicodeDecodeError) as error:
        fix = next((fix for words, fix in _FIXES.items() if words in str(error)), None)
        raise Failed(f"the proof does not hold: {error}", fix, {"ok": False, "problem": str(error)}) from None
    root = base64.b64encode(checkpoint.root).decode()
    document = {
        "ok": True,
        "index": proof.index,
        "checkpoint": {"origin": checkpoint.origin, "size": checkpoint.size, "root": root},
        "record": record,
        "unchecked": unchecked,
    }
    lines = [
        f"proven: record {proof.index} is in the log {shown(checkpoint.origin)}",
        f"signed over {checkpoint.size} records, root {root}",
        shown(proof.entry.decode()),
        *(f"not checked: {part}" for part in unchecked),
    ]
    return document, lines


def _witnessed(note: str, policy: TrustPolicy | None) -> list[str]:
    if policy is None or policy.quorum == NO_QUORUM:
        return ["whether others were shown another log: no policy asks for witnesses"]
    words = cosignatures(note, [witness.key for witness in policy.witnesses])
    if not policy.is_met({word.key for word in words}):
        raise NoteError(f"the policy's quorum {policy.quorum} of witnesses has not cosigned its checkpoint")
    return []
