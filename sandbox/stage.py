"""The first process of a box, as ``python3 -I -S -c``: gives up more, forks the code or program, and ends with it.

By then namespaces, mounts and the system call filter stand. Resource limits are set here, inside the box's own user
namespace, where processes of the same user outside do not count; and in the first process, so that none in the box is
without them. That one shuts its memory, too: the code runs under the same user id and could otherwise write it.

Arguments: ``RESOURCE=SOFT:HARD``. Descriptor 3 says ``R`` when the code is about to run and ``C`` when the limit of
processor time ended it; 4 holds its text. Where ``--``, a descriptor and a program with its arguments follow, there is
no code: the program runs, and that descriptor says the same. Standard library only, and little of it: each box pays.
"""

import builtins
import ctypes
import importlib
import os
import resource
import sys
from types import ModuleType, TracebackType

_READY, _CODE = 3, 4
_PR_SET_DUMPABLE = 4
# By number: the module of signals takes a tenth of a box's time to import.
_SIGINT, _SIG_IGN, _SIGXCPU, _SIGTERM = 2, 1, 24, 15
_MANY, _NOT_FOUND = 1024, 127
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


def _attend(code: int, ready: int) -> None:
    # As the first process, this reaps everybody; its own end is the end of all others.
    ctypes.CDLL(None).signal(_SIGINT, _SIG_IGN)  # no signal of the others reaches a first process without handlers
    os.closerange(0, ready)
    os.closerange(ready + 1, _MANY)
    pid = status = 0
    while pid != code:
        pid, status = os.wait()
    ended = os.waitstatus_to_exitcode(status)
    if ended == -_SIGXCPU:
        os.write(ready, b"C")
    os._exit(ended if ended >= 0 else 128 - ended)


def _pass_on(code: int) -> None:
    # A server is asked to go before it is made to.
    signal = importlib.import_module("signal")
    signal.signal(_SIGTERM, lambda *_: os.kill(code, _SIGTERM))


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


def _turn_into(words: list[str], ready: int) -> None:
    os.umask(0o022)  # what it writes is for others, too, as anywhere
    os.write(ready, b"R")
    os.close(ready)
    try:
        os.execvp(words[0], words)  # noqa: S606 - no shell is wanted
    except OSError as error:
        sys.stderr.write(f"{words[0]} cannot be started in the box: {error.strerror}\n")
        sys.stderr.flush()
        os._exit(_NOT_FOUND)


def _main(words: list[str]) -> None:
    end = words.index("--") if "--" in words else len(words)
    _limit(words[:end])
    _open_to_others(0)
    ready = int(words[end + 1]) if end < len(words) else _READY
    if forked := os.fork():
        if end < len(words):
            _pass_on(forked)
        _attend(forked, ready)
    _open_to_others(1)
    if end < len(words):
        _turn_into(words[end + 2 :], ready)
    _become()


if __name__ == "__main__":
    _main(sys.argv[1:])
