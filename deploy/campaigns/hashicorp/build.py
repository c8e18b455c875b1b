"""Builds the last HashiCorp Vault but one under the Mozilla Public License, once, into the user's cache.

It is run by tests and linked into nothing. Its parts as published do not fit together: the server asks for a newer part
than it was written against, which refuses to start on a coding rule that the server breaks. The rule is taken out of a
copy of that part; the server itself is as it was published, checked by Go's checksum database.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

VERSION: Final = "1.14.1"
_PART: Final = "github.com/hashicorp/vault/sdk"
_PART_VERSION: Final = "v0.9.2"
_RULE: Final = 'panic(fmt.Sprintf("Pattern %v defines a CreateOperation but no ExistenceCheck", p.Pattern))'
_MODULE: Final = f"""module ostiary.test/hashicorp

go 1.20

require (
	github.com/hashicorp/vault v{VERSION}
	{_PART} {_PART_VERSION}
)

replace {_PART} => ./sdk
"""
_MAIN: Final = """package main

import (
	"os"

	"github.com/hashicorp/vault/command"
)

func main() { os.Exit(command.Run(os.Args[1:])) }
"""


class BuildError(Exception):
    """It cannot be built; one line."""


def built() -> Path:
    """The server's binary, made now where it is not there yet: a quarter of an hour on two cores.

    Raises:
        BuildError: there is no Go or no network, or it does not compile.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    found = cache / "ostiary" / f"vault-{VERSION}" / "vault"
    if os.access(found, os.X_OK):
        return found
    if shutil.which("go") is None:
        raise BuildError("Go is not installed")
    with tempfile.TemporaryDirectory(prefix="ostiary-build-") as place:
        folder = Path(place)
        (folder / "go.mod").write_text(_MODULE)
        (folder / "main.go").write_text(_MAIN)
        _copy_part(folder / "sdk")
        _go(folder, "build", "-mod=mod", "-trimpath", "-ldflags=-s -w", "-gcflags=all=-l", "-o", "vault", ".")
        found.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "vault", found.with_suffix(".new"))
    found.with_suffix(".new").rename(found)
    return found


def _copy_part(into: Path) -> None:
    _go(into.parent, "mod", "download", f"{_PART}@{_PART_VERSION}")
    held = Path(_go(into.parent, "env", "GOMODCACHE").strip())
    shutil.copytree(held / f"{_PART}@{_PART_VERSION}", into, copy_function=shutil.copyfile)
    for path in (into, *into.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    source = into / "framework" / "backend.go"
    text = source.read_text()
    if _RULE not in text:
        raise BuildError("the part is not the one that is known")
    source.write_text(text.replace(_RULE, "_ = ok"))


def _go(folder: Path, *words: str) -> str:
    environment = {**os.environ, "CGO_ENABLED": "0"}
    done = subprocess.run(  # noqa: S603 - our own words
        [str(shutil.which("go")), *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise BuildError(f"go {words[0]}: {done.stderr.strip()[-300:]}")
    return done.stdout
