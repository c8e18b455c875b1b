"""The process that redacts large bodies, one at a time, with the gateway at the other end of descriptor 0.

It is told secrets, so nobody of the same user may read its memory; the kernel kills it with the gateway.
"""

import ctypes
import os
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.adapters.redaction.frames import HEAD, Done, Job, packed, unpacked
from gateway.core.errors import Tainted
from gateway.core.needles import Needles
from gateway.core.redact import Bounds, cleaned, holding

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
# What the gateway does for everybody comes before what it does for one large body.
_NICENESS = 5


@dataclass(slots=True)
class Bench:
    """The values that are looked for now, compiled."""

    known: dict[int, Needles] = field(default_factory=dict)

    def work(self, job: Job) -> Done:
        """Do one job."""
        told = {number: Needles(values) for number, values in job.told.items()}
        self.known = {number: told.get(number) or self.known[number] for number in job.parts}
        needles, bounds = tuple(self.known.values()), Bounds(**job.bounds)
        try:
            if job.asks:
                return Done(job.number, holds=holding(job.body, needles, bounds))
            body, counts = cleaned(job.body, needles, bounds)
        except Tainted as error:
            return Done(job.number, cause=error.cause_code, detail=error.detail)
        return Done(job.number, None if body is job.body else body, _plain(counts))


def _plain(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(counts)


def serve(channel: socket.socket) -> None:
    """Work until the other end is gone."""
    bench = Bench()
    with channel.makefile("rwb") as stream:
        while len(head := stream.read(HEAD.size)) == HEAD.size:
            (size,) = HEAD.unpack(head)
            body = stream.read(size)
            if len(body) < size:
                return
            stream.write(packed(bench.work(unpacked(body, Job))))
            stream.flush()


def main() -> int:
    """Entry point of the process; its one argument is the gateway's process id."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the gateway ends it by hanging up
        signal.signal(number, signal.SIG_IGN)
    os.nice(_NICENESS)
    if os.getppid() != int(sys.argv[1]):
        return 1
    serve(socket.socket(fileno=os.dup(0)))
    return 0
