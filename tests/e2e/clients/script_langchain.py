"""The scripted model of what is built on LangChain; see ``plot``."""

from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from plot import Plot
from pydantic import PrivateAttr


class Script(BaseChatModel):
    """The model."""

    _plot: Plot = PrivateAttr(default_factory=Plot)

    @property
    def plot(self) -> Plot:
        """What it does and sees."""
        return self._plot

    @property
    def _llm_type(self) -> str:
        return "script"

    def bind_tools(self, tools: Any, **_: Any) -> "Script":
        """Note what the model may call."""
        self._plot.offered = [tool.name for tool in tools]
        return self

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        self._plot.seen = [str(message.text) for message in messages if isinstance(message, ToolMessage)]
        word = AIMessage("finished")
        if (call := self._plot.next()) is not None:
            word = AIMessage("", tool_calls=[{"name": call[0], "args": call[1], "id": f"c{len(self._plot.seen)}"}])
        return ChatResult(generations=[ChatGeneration(message=word)])
