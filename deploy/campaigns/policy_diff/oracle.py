"""The oracle: OPA itself, against which the engines are held. Not shipped, and no engine to serve with: no deadline."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from gateway.core.bundle import Bundle, BundleError

DECISION: Final = "gateway.main.decision"
_CHILD: Final = Path(__file__).with_name("oracle_child.py")


@dataclass(frozen=True, slots=True)
class Spoken:
    """What an engine said of one document.

    Attributes:
        result: JSON text, or None where it is undefined or failed.
        fault: ``engine.undefined``, ``engine.error``, or None.
        words: of the failure, for people.
    """

    result: bytes | None
    fault: str | None = None
    words: str = ""


class _Expression(msgspec.Struct):
    value: msgspec.Raw


class _Row(msgspec.Struct):
    expressions: tuple[_Expression, ...] = ()


class _Error(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Envelope(msgspec.Struct):
    result: tuple[_Row, ...] | None = None
    error: _Error | None = None


_envelope = msgspec.json.Decoder(_Envelope)


def python() -> Path:
    """The interpreter that has OPA as a library: ``$OSTIARY_VENVS/opa``, default ``.venvs`` of the project."""
    root = Path(os.environ.get("OSTIARY_VENVS") or Path(__file__).parents[3] / ".venvs")
    return root / "opa" / "bin" / "python"


class Oracle:
    """OPA in a child process; a context manager. Not for several threads at a time."""

    def __init__(self) -> None:
        self._child = subprocess.Popen(  # noqa: S603  our own command line
            [str(python()), "-I", "-B", str(_CHILD)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={}
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.kill()
        self._child.communicate()

    def load(self, bundle: Bundle) -> None:
        """Have it answer from ``bundle``.

        Raises:
            BundleError: a module does not parse. What else OPA's compiler refuses shows at the first question.
        """
        modules = json.dumps([[module.name, module.text] for module in bundle.modules])
        error = self._said(f'{{"modules": {modules}, "data": {bundle.data}}}\n'.encode()).error
        if error is not None:
            raise BundleError(error.message)

    def ask(self, document: bytes, path: str = DECISION) -> Spoken:
        """What ``data.PATH`` is for this input."""
        said = self._said(b'{"path": %s, "input": %s}\n' % (json.dumps(path).encode(), document.replace(b"\n", b" ")))
        if said.error is not None:
            return Spoken(None, "engine.error", said.error.message)
        if not said.result or not said.result[0].expressions:
            return Spoken(None, "engine.undefined")
        return Spoken(bytes(said.result[0].expressions[0].value))

    def _said(self, line: bytes) -> _Envelope:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(line)
        self._child.stdin.flush()
        answer = self._child.stdout.readline()
        if not answer:
            raise RuntimeError("the oracle has ended")
        return _envelope.decode(answer)
