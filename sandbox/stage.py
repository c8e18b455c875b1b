"""The first thing that runs inside a box, as ``python3 -I -S -c``: gives up more, then becomes the code.

By then namespaces, mounts and the system call filter stand. Resource limits are set here, inside the box's own user
namespace, where processes of the same user outside do not count. Arguments: ``RESOURCE=SOFT:HARD``. Descriptor 3
says that the code is about to run, 4 holds its text. Standard library only, and little of it: each box pays for it.
"""

import builtins
import os
import resource
import sys
from types import ModuleType, TracebackType

_READY, _CODE = 3, 4
_NAME = "main.py"


def _limit(pairs: list[str]) -> None:
    for pair in pairs:
        name, _, value = pair.partition("=")
        soft, _, hard = value.partition(":")
        resource.setrlimit(getattr(resource, name), (int(soft), int(hard or soft)))


def _text() -> bytes:
    with os.fdopen(_CODE, "rb") as given:
        text = given.read()
    try:
        with open(_NAME, "wb") as shown:  # noqa: PTH123 - pathlib takes longer to import than the box to start
            shown.write(text)
    except OSError:  # no room: a traceback shows no lines then
        return text
    return text


def _told(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    # A traceback begins with the code's own frame.
    while trace is not None and trace.tb_frame.f_code.co_filename != _NAME:
        trace = trace.tb_next
    sys.__excepthook__(kind, error.with_traceback(trace), trace)


def _become() -> None:
    _limit(sys.argv[1:])
    sys.argv = [_NAME]
    sys.excepthook = _told
    module = ModuleType("__main__")
    module.__dict__["__file__"] = _NAME
    sys.modules["__main__"] = module
    vars(builtins).update(exit=sys.exit, quit=sys.exit)
    text = _text()
    os.write(_READY, b"R")
    os.close(_READY)
    exec(compile(text, _NAME, "exec"), module.__dict__)  # noqa: S102 - what a box is for


if __name__ == "__main__":
    _become()
