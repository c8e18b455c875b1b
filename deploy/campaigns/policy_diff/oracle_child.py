"""OPA itself in a process of its own; run by the interpreter of ``.venvs/opa``, imports nothing of the gateway.

One JSON object a line. Asked ``{"modules": [[name, text], ...], "data": {...}}`` it loads a bundle in place of the one
before and answers ``{}`` or ``{"error"}``. Asked ``{"path": "gateway.main.decision", "input": ...}`` it answers as the
library does: ``{"result": [{"expressions": [{"value": ...}]}]}``, without a result where the document is undefined, or
``{"error": {"code", "message"}}``. Errors of built-ins are errors (``strict-builtin-errors``). Values are passed on as
they were written: no number is read and written again on the way.
"""

import ctypes
import json
import sys
from typing import Any

from opa_bindings import OpaEngine, OpaError

_INPUT = b', "input": '


def main() -> None:
    """Serve lines until the other end closes."""
    engine = OpaEngine()
    for line in sys.stdin.buffer:
        if line.startswith(b'{"modules"'):
            engine.close()
            engine = OpaEngine()
            answer = _load(engine, json.loads(line))
        else:
            head, _, document = line.rstrip().partition(_INPUT)
            answer = _evaluate(engine, json.loads(head + b"}")["path"], document[:-1])
        sys.stdout.buffer.write(answer + b"\n")
        sys.stdout.buffer.flush()


def _load(engine: OpaEngine, bundle: dict[str, Any]) -> bytes:
    try:
        for name, text in bundle["modules"]:
            engine.add_policy(name, text)
        engine.add_data(bundle["data"])
    except OpaError as error:
        return json.dumps({"error": {"code": error.code, "message": error.message}}).encode()
    return b"{}"


def _evaluate(engine: OpaEngine, path: str, document: bytes) -> bytes:
    library = engine._lib  # noqa: SLF001  its own calls would parse and write the document again
    answer = library.OpaEvalDocument(engine._handle, path.encode(), document, 0, 0)  # noqa: SLF001
    try:
        return ctypes.string_at(answer)
    finally:
        library.OpaFreeString(answer)


if __name__ == "__main__":
    main()
