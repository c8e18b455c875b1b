"""``ostiary audit verify``: the log against its public key, without a gateway."""

import base64
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from gateway.adapters.ledger.keyring.keys import KEY_SIZE, LOG_VKEY, NEXT_KEK, PAYLOAD_KEK
from gateway.adapters.ledger.keyring.sealing import PayloadKey
from gateway.adapters.ledger.storage.files import DATABASE
from gateway.adapters.ledger.storage.site import Site
from gateway.adapters.ledger.verification.report import Finding, Report
from gateway.adapters.ledger.verification.verify import Means, Progress
from gateway.adapters.ledger.verification.verify import verify as check_log
from gateway.adapters.ledger.verification.verify_keys import keys_of
from gateway.cli.home import of_state, unusable
from gateway.cli.proving import proven
from gateway.cli.reach import state_option
from gateway.cli.screen import Misconfigured, answer, json_option, shown
from gateway.cli.signers import who_signed
from gateway.core.cosigning import TrustError, TrustPolicy
from gateway.core.tiles import ProofError, read_proof
from gateway.core.tlog import NoteError, VerifierKey
from gateway.parts import stores
from gateway.settings import SettingsError

_OWN_KEY = "that the key is the log's: {} lies beside it; give the one you keep elsewhere with --vkey or --policy"


@click.command()
@click.option(
    "--vkey", type=click.Path(path_type=Path), help="The log's public key, kept elsewhere [STATE/keys/log.vkey]."
)
@click.option(
    "--checkpoint", type=click.Path(path_type=Path), help="A checkpoint kept elsewhere, which the log must extend."
)
@click.option(
    "--policy",
    type=click.Path(path_type=Path),
    help="A C2SP tlog-policy kept elsewhere: the log's keys (unless --vkey says them), its witnesses and their quorum.",
)
@click.option("--proof", type=click.Path(path_type=Path), help="Check one record by its .tlog-proof; no log is needed.")
@click.option("--payloads", is_flag=True, help="Open every payload, too: needs STATE/keys/payload.kek.")
@state_option
@json_option
def verify(state: Path, *, payloads: bool, **given: Path | None) -> None:
    """Check every record, run, payload, data key and signature of the log.

    With --proof: check one record by a file that `ostiary audit prove` wrote, wherever it came from.

    Needs no running gateway, and may run beside one. Whoever can change the log can change what lies beside it: give
    the copies you keep elsewhere as --vkey or --policy, and --checkpoint (a checkpoint is what GET
    /v1/audit/log/checkpoint answers, or a copy of STATE/log.guard). Any key the log ever had will do: the others are
    followed from it. Where gateway.toml in STATE or beside it has [audit.postgres], that log is checked. What was not
    checked is said. Exit code 1 where anything is not as it was written.
    """
    policy = _policy(given["policy"])
    keys = _keys(state, given["vkey"], policy)
    own = [] if _is_elsewhere(given["vkey"], policy) else [_OWN_KEY.format(state / "keys" / LOG_VKEY)]
    proof, checkpoint = given["proof"], given["checkpoint"]
    if proof is not None:
        text = _text(proof, "proof", "--proof")
        document, lines = proven(text, keys if given["vkey"] or policy else _in_force(state, keys, text), policy)
        document["unchecked"] += own
        answer(document, [*lines, *(f"not checked: {part}" for part in own)])
        return
    kek = _kek(state / "keys")
    if payloads and kek is None:
        raise Misconfigured(
            f"{state / 'keys' / PAYLOAD_KEK} cannot be read", "leave --payloads out, or run as its owner"
        )
    kept = None if checkpoint is None else _text(checkpoint, "checkpoint", "--checkpoint")
    with _progress() as progress:
        report = check_log(_place(state), keys, Means(kept, kek, deep=payloads, policy=policy), progress)
        if not report.ok and (now := _kek(state / "keys")) != kek:  # it was replaced while the log was read
            report = check_log(_place(state), keys, Means(kept, now, deep=payloads, policy=policy), progress)
    report.unchecked += own
    answer(_document(report), _lines(report))
    if not report.ok:
        raise click.exceptions.Exit(1)


def _place(state: Path) -> Path | Site:
    # A copy for an auditor has no configuration, and needs none.
    if not state.is_dir() or (state / DATABASE).exists():
        return state
    try:
        return stores.site(of_state(state))
    except SettingsError as error:
        raise unusable(error) from None


@contextmanager
def _progress() -> Iterator[Progress | None]:
    # On the screen of a person only: a file or a pipe gets what was found and nothing else.
    if not sys.stderr.isatty():
        yield None
        return
    began = time.monotonic()

    def tell(done: int, total: int) -> None:
        pace = round(done / max(time.monotonic() - began, 0.001))
        click.echo(f"\r{done:,} of {total:,} records, {pace:,} a second ", err=True, nl=False)

    try:
        yield tell
    finally:
        click.echo("\r\x1b[K", err=True, nl=False)


def _policy(path: Path | None) -> TrustPolicy | None:
    if path is None:
        return None
    try:
        return TrustPolicy.parse(_text(path, "policy", "--policy"))
    except TrustError as error:
        raise Misconfigured(f"{path}: {error}", "write one with `ostiary audit policy`") from None


def _is_elsewhere(vkey: Path | None, policy: TrustPolicy | None) -> bool:
    return vkey is not None or (policy is not None and bool(policy.logs))


def _keys(state: Path, vkey: Path | None, policy: TrustPolicy | None) -> str:
    if vkey is None and policy is not None and policy.logs:
        return "\n".join(key.text for key in policy.logs)
    return _text(vkey or state / "keys" / LOG_VKEY, "public key", "--vkey").strip()


def _in_force(state: Path, vkey: str, proof: str) -> str:
    # Beside the log itself its first key is enough: the log says which keys came after it.
    try:
        found = keys_of(_place(state), VerifierKey.parse(vkey), read_proof(proof).checkpoint)
    except (NoteError, ProofError, Misconfigured):
        return vkey
    return "\n".join(key.text for key in found)


def _text(path: Path, what: str, option: str) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        raise Misconfigured(f"the log's {what} {path} cannot be read", f"name it with {option}") from None


def _kek(folder: Path) -> PayloadKey | None:
    # An auditor's copy has none, and other users may not read it: then this part is reported as not checked. The next
    # one is there while it is being replaced, and is looked for first: then it takes the other one's name.
    found = [key for name in (NEXT_KEK, PAYLOAD_KEK) if (key := _key(folder / name)) is not None]
    return PayloadKey(*found) if found else None


def _key(path: Path) -> bytes | None:
    try:
        key = path.read_bytes()
    except OSError:
        return None
    return key if len(key) == KEY_SIZE else None


def _document(report: Report) -> dict[str, Any]:
    point = report.checkpoint
    signed = point and {"origin": point.origin, "size": point.size, "root": base64.b64encode(point.root).decode()}
    return {
        "ok": report.ok,
        "size": report.size,
        "payloads": report.payloads,
        "opened": report.opened,
        "erased": report.erased,
        "checkpoint": signed,
        "findings": [asdict(found) for found in report.findings],
        "open_calls": list(report.open_calls),
        "signers": [asdict(signer) for signer in report.signers],
        "signed_us": report.signed_us,
        "witnesses": [asdict(word) for word in report.testimonies],
        "witnessed": report.witnessed,
        "unchecked": report.unchecked,
        "notices": report.notices,
    }


def _lines(report: Report) -> Iterator[str]:
    for found in report.findings:
        yield _line(found)
    counted = f"{report.size} records, {report.payloads} sealed payloads"
    if not report.ok:
        yield f"NOT SOUND: {len(report.findings)} finding(s) in {counted}"
        return
    if report.checkpoint is None:
        yield f"sound, but nothing is signed yet: {counted}"
        return
    yield f"sound: {counted}"
    yield f"signed by {shown(report.checkpoint.origin)}, root {base64.b64encode(report.checkpoint.root).decode()}"
    yield from who_signed(report)
    if report.erased:
        yield f"{report.erased} payloads were erased: their data keys were destroyed, and signed records say so"
    if report.open_calls:
        yield f"{len(report.open_calls)} calls have no ending yet: normal while a gateway runs or after it was killed"
    for notice in report.notices:
        yield f"notice: {shown(notice)}"
    for part in report.unchecked:
        yield f"not checked: {part}"


def _line(found: Finding) -> str:
    place = "log" if found.index is None else f"record {found.index}"
    return f"{place}{'' if found.id is None else f' ({shown(found.id)})'}: {shown(found.problem)}"
