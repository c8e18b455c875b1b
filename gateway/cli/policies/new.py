"""``ostiary policy new``: a package of the gallery, copied for one's own changes."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import click

from gateway.adapters.rego.gallery import Starter, UnfitName, copied, starters
from gateway.cli.screen import Misconfigured, answer, columns, json_option, shown


@click.command()
@click.argument("name", required=False)
@click.argument("folder", metavar="[DIR]", default="policies", type=click.Path(path_type=Path, file_okay=False))
@click.option("--from", "package", metavar="PACKAGE", help="The package to begin with; NAME, unless given.")
@click.option("--list", "is_list", is_flag=True, help="List the packages there are.")
@json_option
def new(name: str | None, folder: Path, package: str | None, *, is_list: bool) -> None:
    """Copy a package of the gallery into DIR (policies), as NAME.

    DIR is a folder that [policy] bundles names. DIR/NAME gets the rules and their tests, DIR/house/NAME/data.json the
    settings they read. Nothing is overwritten. Edit the settings first: the package is in force once DIR is loaded.
    """
    known = starters()
    if is_list:
        _list(known)
        return
    if name is None:
        raise click.UsageError("give a NAME, or --list")
    starter = known.get(package or name)
    if starter is None:
        raise Misconfigured(f"the gallery has no package {shown(package or name)}", "`ostiary policy new --list`")
    try:
        files = copied(starter, name)
    except UnfitName as error:
        raise Misconfigured(f"{shown(name)}: {error}", "give another NAME") from None
    written = _write(folder, files)
    document = {"name": name, "from": starter.name, "folder": str(folder), "files": [str(path) for path in written]}
    answer(document, [*(f"wrote {path}" for path in written), "", "next:", *_next(folder, name)])


def _list(known: Mapping[str, Starter]) -> None:
    rows = [(starter.name, starter.title) for starter in known.values()]
    document = {"packages": [{"name": starter.name, "title": starter.title} for starter in known.values()]}
    answer(document, columns(("PACKAGE", "ABOUT"), rows))


def _write(folder: Path, files: Mapping[PurePosixPath, str]) -> list[Path]:
    paths = {folder / place: text for place, text in files.items()}
    there = [path for path in paths if path.exists()]
    if there:
        raise Misconfigured(f"{there[0]} exists already; nothing was written", "give another NAME or DIR")
    try:
        for path, text in paths.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:  # "x": also refuses what appeared since the check
                file.write(text)
    except OSError as error:
        raise Misconfigured(f"{error.filename}: {error.strerror}", "give a folder you may write to") from None
    return list(paths)


def _next(folder: Path, name: str) -> list[str]:
    return [
        f"  edit {folder / 'house' / name / 'data.json'} (an example; in force wherever {folder} is loaded)",
        f"  ostiary policy check {folder}",
        f"  ostiary policy test {folder}",
    ]
