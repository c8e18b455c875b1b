"""The first process of a box, as ``python3 -I -S -c``: gives up more, forks the code, and ends with it.

By then namespaces, mounts and the system call filter stand. Resource limits are set here, inside the box's own user
namespace, where processes of the same user outside do not count; and in the first process, so that none in the box is
without them. That one shuts its memory, too: the code runs under the same user id and could otherwise write it.

Arguments: ``RESOURCE=SOFT:HARD``. Descriptor 3 says ``R`` when the code is about to run and ``C`` when the limit of
processor time ended it; 4 holds its text. Standard library only, and little of it: each box pays for it.
"""

import builtins
import ctypes
import os
import resource
import sys
from types import ModuleType, TracebackType

_READY, _CODE = 3, 4
_PR_SET_DUMPABLE = 4
# By number: the module of signals takes a tenth of a box's time to import.
_SIGINT, _SIG_IGN, _SIGXCPU = 2, 1, 24
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


def _open_to_others(dumpable: int) -> None:
    # Whoever is not dumpable has no /proc/PID/mem that another process of the same user could open.
    if ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, dumpable, 0, 0, 0) != 0:
        os._exit(1)


def _attend(code: int) -> None:
    # As the first process, this reaps everybody; its own end is the end of all others.
    ctypes.CDLL(None).signal(_SIGINT, _SIG_IGN)  # no signal of the others reaches a first process without handlers
    for descriptor in (0, 1, 2, _CODE):
        os.close(descriptor)
    pid = status = 0
    while pid != code:
        pid, status = os.wait()
    ended = os.waitstatus_to_exitcode(status)
    if ended == -_SIGXCPU:
        os.write(_READY, b"C")
    os._exit(ended if ended >= 0 else 128 - ended)


def _become() -> None:
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
    _limit(sys.argv[1:])
    _open_to_others(0)
    if forked := os.fork():
        _attend(forked)
    _open_to_others(1)
    _become()
