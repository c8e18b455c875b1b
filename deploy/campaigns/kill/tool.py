"""The tool: an HTTP server that notes each effect durably before it answers, and now and then looks into the log.

A line of its journal is ``{"marker", "call", "intent"}``: what was noted, the call id that came with it, and whether
the log held that call's intent at this very moment (null where it was not looked for). Nobody kills this process, so
what stands in the journal is what happened. Its first line on standard output is JSON: ``{"url": ...}``.

Run: ``python -m deploy.campaigns.kill.tool JOURNAL LOG``; LOG is a file, or the URL of a database in PostgreSQL whose
password is in the environment.
"""

import asyncio
import json
import os
import socket
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import asyncpg
import uvicorn

from gateway.adapters.ledger.database import FAULTS
from gateway.adapters.ledger.storage.files import connect_readonly

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# A look opens the log and closes it again: whoever kept it open would spare the next gateway its recovery.
LOOKS: Final = 4
_KEY: Final = b"idempotency-key"
_INTENT: Final = "select 1 from records where call_id = ? and type = 'tool.requested'"
_INTENT_THERE: Final = "select 1 from ostiary.records where call_id = $1 and type = 'tool.requested'"


class Tool:
    """Effects, and their journal."""

    def __init__(self, journal: Path, log: str) -> None:
        """``log`` is the gateway's database; it need not be there yet."""
        self._journal = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._log = log
        self._effects = 0

    async def note(self, marker: str, call_id: str) -> None:
        """Have an effect; on disk when this returns."""
        self._effects += 1
        intent = None
        if self._effects % LOOKS == 0:
            intent = await self._look_there(call_id) if "://" in self._log else self._look(call_id)
        line = json.dumps({"marker": marker, "call": call_id, "intent": intent}) + "\n"
        os.write(self._journal, line.encode())
        os.fdatasync(self._journal)

    def _look(self, call_id: str) -> bool | None:
        try:
            with closing(connect_readonly(Path(self._log))) as db:
                return db.execute(_INTENT, (call_id,)).fetchone() is not None
        except FAULTS:
            return None  # a dead gateway's log is being recovered: nothing was seen

    async def _look_there(self, call_id: str) -> bool:
        connection = await asyncpg.connect(self._log, ssl=False)
        try:
            return await connection.fetchrow(_INTENT_THERE, call_id) is not None
        finally:
            await connection.close()

    async def app(self, scope: Message, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        message = await receive()
        body: bytes = message.get("body", b"")
        while message.get("more_body"):
            message = await receive()
            body += message.get("body", b"")
        marker = str(json.loads(body)["marker"])
        await self.note(marker, dict(scope["headers"]).get(_KEY, b"").decode("ascii"))
        said = json.dumps({"marker": marker}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(said))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": said})


def main() -> None:
    """Serve on a free loopback port until told to stop."""
    tool = Tool(Path(sys.argv[1]), sys.argv[2])
    listener = socket.create_server(("127.0.0.1", 0))
    sys.stdout.write(json.dumps({"url": f"http://127.0.0.1:{listener.getsockname()[1]}"}) + "\n")
    sys.stdout.flush()
    config = uvicorn.Config(tool.app, access_log=False, log_level="warning", lifespan="off", interface="asgi3")
    server = uvicorn.Server(config)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(server.serve(sockets=[listener]))


if __name__ == "__main__":
    main()
