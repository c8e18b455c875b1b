"""``ostiary policy decisions``: recorded decisions in the shape of OPA's decision log."""

import json
from collections import Counter
from pathlib import Path
from typing import IO

import click
from rich.text import Text

from gateway.cli.policies import tables
from gateway.cli.policies.events import Recorded, parsed, recorded
from gateway.cli.policies.picking import Found, Revisions, Wanted, decisions, is_meant, lines, picking
from gateway.cli.reach import Reach
from gateway.cli.screen import Misconfigured, answer, shown, wants_json

_PRIVATE = 0o600


@click.command("decisions")
@click.option(
    "--jsonl", type=click.Path(path_type=Path, allow_dash=True), metavar="FILE", help="Write events; - is stdout."
)
@click.option(
    "--with-revisions", type=click.Path(path_type=Path), metavar="DIR", help="Write the policies of the time."
)
@picking
def export(reach: Reach, wanted: Wanted, jsonl: Path | None, with_revisions: Path | None) -> None:
    """List recorded decisions, or export them in OPA's decision-log shape.

    One event a line, whole: inputs hold arguments, so files are readable by you alone. What was not kept is named in
    `erased`, what was taken out in `masked`. With the revisions, `policy replay --from FILE --revisions DIR` needs no
    gateway.
    """
    if jsonl is None and with_revisions is None:
        _list(decisions(reach, wanted))
        return
    count, revisions = _exported(reach, wanted, jsonl)
    missing = _revisions(reach, wanted, with_revisions, revisions)
    document = {"decisions": count, "revisions": len(revisions) - len(missing), "missing": missing}
    if jsonl is not None and str(jsonl) == "-":
        return
    kept = [f"{len(missing)} revisions are not kept any more"] if missing else []
    answer(document, [f"{count} decisions written", *kept])


def _exported(reach: Reach, wanted: Wanted, jsonl: Path | None) -> tuple[int, list[str]]:
    count, revisions = 0, set()
    with _opened(jsonl) as file:
        for place, raw in lines(reach, wanted):
            one = recorded(parsed(raw, place))
            if not is_meant(one, wanted):
                continue
            if count == wanted.limit:
                click.echo("ostiary: there are more: --limit cut them off", err=True)
                break
            revisions.add(one.revision)
            file.write(raw.strip() + b"\n")
            count += 1
    return count, sorted(revisions - {""})


def _opened(jsonl: Path | None) -> IO[bytes]:
    if jsonl is None:
        return Path("/dev/null").open("wb")
    if str(jsonl) == "-":
        return click.open_file("-", "wb")
    try:
        jsonl.touch(_PRIVATE, exist_ok=False)
        return jsonl.open("wb")
    except OSError as error:
        raise Misconfigured(f"{jsonl} cannot be written: {error.strerror}", "give a new file") from None


def _revisions(reach: Reach, wanted: Wanted, folder: Path | None, wished: list[str]) -> list[str]:
    if folder is None:
        return []
    store, missing = Revisions(reach, wanted.revisions), []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for revision in wished:
            # Checked against its digest, which then names the file.
            bundle = store.bundle(revision)
            if bundle is None:
                missing.append(revision)
                continue
            given = {"revision": revision, "modules": [[m.name, m.text] for m in bundle.modules], "data": bundle.data}
            (folder / f"{revision}.json").write_text(json.dumps(given), "utf-8")
    except OSError as error:
        raise Misconfigured(f"{folder} cannot be written: {error.strerror}") from None
    return missing


def _list(found: Found) -> None:
    kinds = Counter(_kind(one) for one in found.decisions)
    if wants_json():
        rows = [dict(zip(_HEADS, (*kind, count), strict=True)) for kind, count in kinds.most_common()]
        answer({"decisions": len(found.decisions), "more": found.more, "kinds": rows}, ())
        return
    heading = f"recorded decisions: {len(found.decisions)}{' and more' if found.more else ''}"
    tables.tell([tables.counted(heading, _HEADS, ((*kind, count) for kind, count in kinds.most_common()))])
    tables.tell([Text("--jsonl FILE exports them", "dim")])


_HEADS = ("tool", "agent", "effect", "enforced", "reasons", "calls")


def _kind(one: Recorded) -> tuple[str, str, str, str, str]:
    facts, result = one.event.ostiary, one.event.result
    ids = ", ".join(dict.fromkeys(reason.id for reason in result.reasons))
    return one.tool, shown(one.agent), str(result.effect), "yes" if facts.enforced else "observed", ids
