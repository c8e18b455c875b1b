"""The server's own cycle of request and answer, for a request whose head was known and nothing of which was parsed."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle


class KnownCycle(RequestResponseCycle):
    """What each begins with stands in the class: making one is a tenth of what the server does for a request."""

    disconnected = False
    keep_alive = True
    waiting_for_100_continue = False
    body: Any = b""  # whoever adds to it makes a buffer of it first
    more_body = True
    response_started = False
    response_complete = False
    chunked_encoding = None
    expected_content_length = 0

    def __init__(self, scope: Any, protocol: HttpToolsProtocol) -> None:
        """The cycle of a request on that connection; as the server makes one, but for what stands in the class."""
        self.scope = scope
        self.transport = protocol.transport
        self.flow = protocol.flow
        self.logger = protocol.logger
        self.access_logger = protocol.access_logger
        self.access_log = protocol.access_log
        self.default_headers = protocol.server_state.default_headers
        self.message_event = asyncio.Event()
        self.on_response = protocol.on_response_complete
