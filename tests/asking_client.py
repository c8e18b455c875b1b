"""A client of the gateway that can be asked during its calls, at a connector."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from anyio import fail_after

from connectors.mcp.http import HttpConnector
from gateway.core.call import Lease, Raw, Resolved
from gateway.core.canonical import Arguments
from gateway.core.flow import Flow, NotAnswered, Wants
from gateway.core.mcpwire import asking
from gateway.core.mcpwire.asking import Question
from gateway.core.tool import Tool
from tests.evidence import make_arguments, make_call, make_caller, make_intent, make_permit, make_tool

TOOL = make_tool()
ACCEPTED = {"action": "accept", "content": {"name": "Ada"}}
ALL = asking.declared({"elicitation": {}, "sampling": {}})


class FreeInquiry:
    """Lets everything be asked and answered."""

    async def permit(self, question: Question) -> Question:
        """As it is."""
        return question

    async def accept(self, question: Question, answer: Arguments) -> None:
        """All of them."""


class Client:
    """A client that can be asked."""

    def __init__(self, capabilities: Mapping[str, Any] = ALL, *, answers: bool = True, tool: Tool = TOOL) -> None:
        self._tool = tool
        self.shown: list[Question] = []
        self.over = 0
        self._answers = answers
        self.flow = Flow(Wants("t", capabilities=capabilities), self._clean, self._deliver, lambda: None, self._put)

    async def call(self, connector: HttpConnector, **members: Any) -> Raw:
        """One call with this client on the line."""
        call = make_call(self._tool.fqn, flow=self.flow, **members)
        with self.flow.under_way(lambda: None, FreeInquiry()), fail_after(30):
            return await connector.invoke(
                Lease(make_intent(make_permit(Resolved(make_caller(call), self._tool, None))), {"authorization": "x"})
            )

    def _clean(self, body: bytes) -> tuple[bytes, Mapping[str, int]]:
        return body, {}

    async def _deliver(self, message: bytes) -> None:
        self.shown.append(Question("notice", json.loads(message)["params"]))

    async def _put(self, question: Question) -> Arguments:
        self.shown.append(question)
        try:
            if not self._answers:
                await asyncio.Event().wait()
            if question.method.startswith("sampling"):
                raise NotAnswered("declined")
        finally:
            self.over += 1
        return make_arguments(ACCEPTED)
