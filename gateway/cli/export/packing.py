"""The files of an export bundle: written beside their place, and put there only when they are whole."""

import base64
import contextlib
import gzip
import hashlib
import json
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from gateway.cli.export import verify
from gateway.cli.export.collecting import Row
from gateway.cli.screen import Failed
from gateway.core.canonical import encode

_ARCHIVE = ".tar.gz"
README = """\
This is an export of a signed audit log. It can be checked without the software that made it:

    python3 -I verify.py --vkey KEY

KEY is the log's public key, and you should have it from elsewhere than from this bundle. It takes Python 3.11 or newer
and the package `cryptography`. verify.py and its part trust.py are short: read them, or write your own; the formats are
RFC 6962 and C2SP (signed-note, tlog-checkpoint, tlog-cosignature, tlog-policy). Who has altered this bundle may have
altered them, too. KEY is any key the log ever signed with. With --policy FILE, a C2SP trust policy, the witnesses it
names must have cosigned the log.

report.html       for reading; nothing in it is signed
records.jsonl     a line for each record: its place in the log, its bytes (`leaf`), and the proof that it is in the tree
payloads.jsonl    a line for each opened payload: what the record commits to by HMAC-SHA256
keys.json         the keys of those commitments, by data key. They open nothing
checkpoint        the signed root of the tree
log.vkey          the log's first public key, which names it, as the exporter knew it
tlog-policy       the keys that signed the checkpoint, and the witnesses the gateway asks, as a C2SP trust policy
witnessed.json    if it is there: a checkpoint that witnesses have cosigned, and the proof that this log continues it
policies/         the policy of each revision that decided: the name of the file is the SHA-256 of its bytes
manifest.json     what was chosen, and the SHA-256 of every file
manifest.sha256   the SHA-256 of manifest.json
"""


@dataclass(slots=True)
class Records:
    """The files that hold records, open for writing.

    Attributes:
        revisions: the policy revisions that decisions name.
    """

    folder: Path
    records: int = 0
    payloads: int = 0
    revisions: set[str] = field(default_factory=set)
    _keys: dict[str, str] = field(default_factory=dict, repr=False)
    _stack: ExitStack = field(default_factory=ExitStack)
    _lines: IO[str] = field(init=False)
    _opened: IO[str] = field(init=False)

    def __enter__(self) -> Self:
        self._lines = self._stack.enter_context((self.folder / "records.jsonl").open("x", encoding="utf-8"))
        self._opened = self._stack.enter_context((self.folder / "payloads.jsonl").open("x", encoding="utf-8"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        if error is None:
            write_json(self.folder / "keys.json", self._keys)

    def add(self, row: Row) -> None:
        """Write a record and its payloads."""
        self._lines.write(_line({"index": row.index, "leaf": row.leaf, "proof": row.proof}))
        self.records += 1
        for one in row.payloads:
            self._opened.write(_line({"index": row.index, "role": one.role, **_content(one.content)}))
            self._keys[one.dek] = one.key
            self.payloads += 1
        if row.record["type"] == "decision":
            self.revisions.add(row.record["body"]["revision"])


def write_policy(folder: Path, revision: str, found: dict[str, Any]) -> None:
    """Write a policy as the bytes whose SHA-256 is its revision.

    Raises:
        Failed: the gateway gave another one.
    """
    content = encode([found["modules"], found["data"]])
    if hashlib.sha256(content).hexdigest() != revision:
        raise Failed(f"what the gateway gave as policy {revision} is another one", "do not use this gateway's exports")
    (folder / "policies").mkdir(exist_ok=True)
    (folder / "policies" / f"{revision}.json").write_bytes(content)


def write_json(path: Path, document: Any) -> None:
    """Write a document for people and machines."""
    path.write_text(json.dumps(document, indent=2, ensure_ascii=True) + "\n", "utf-8")


def seal(folder: Path, claims: dict[str, Any]) -> None:
    """Write the checker and, last, the manifest over all files there are."""
    for name in ("verify.py", "trust.py"):
        shutil.copyfile(Path(verify.__file__).with_name(name), folder / name)
    (folder / "README.txt").write_text(README, "utf-8")
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    write_json(folder / verify.MANIFEST, {**claims, "files": {name: _digest(folder / name) for name in names}})
    digest = _digest(folder / verify.MANIFEST)
    (folder / verify.SEAL).write_text(f"{digest}  {verify.MANIFEST}\n", "ascii")


@contextlib.contextmanager
def placed(output: Path) -> Iterator[Path]:
    """A new folder to write to, which becomes ``output`` (a folder, or an archive where it is called .tar.gz) at last.

    Only its owner can read it: who else may, is for them to say.

    Raises:
        Failed: something is there already, or it cannot be written.
    """
    if output.exists() or output.is_symlink():
        raise Failed(f"{output} is there already; nothing was written", "name another place with -o")
    try:
        with tempfile.TemporaryDirectory(prefix=".export-", dir=output.parent) as beside:
            name = output.name.removesuffix(_ARCHIVE)
            folder = Path(beside) / name
            folder.mkdir(mode=0o700)
            yield folder
            if output.name.endswith(_ARCHIVE):
                archive = Path(beside) / f"{name}{_ARCHIVE}"
                _pack(folder, archive)
                archive.rename(output)
            else:
                folder.rename(output)
    except OSError as error:
        raise Failed(f"{output} cannot be written: {error.strerror}", "name another place with -o") from None


def _pack(folder: Path, archive: Path) -> None:
    archive.touch(mode=0o600)
    with gzip.open(archive, "wb") as packed, tarfile.open(fileobj=packed, mode="w|") as tar:
        for path in sorted(folder.rglob("*")):
            tar.add(path, f"{folder.name}/{path.relative_to(folder).as_posix()}", recursive=False, filter=_nobodys)


def _nobodys(member: tarfile.TarInfo) -> tarfile.TarInfo:
    # Whose account exported is nobody's business who receives it.
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _content(content: bytes) -> dict[str, str]:
    try:
        return {"text": content.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode()}


def _line(document: dict[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
