"""What the scripted models here ask for and get to read: ``SCRIPT CALLS``, URL and token in the environment.

CALLS is JSON: ``[[tool, arguments], ...]``; the model asks for one after the other, then answers ``finished``. An
argument ``@approval`` stands for the approval that the newest pending answer names.
"""

import json
import os
import re
import sys
from typing import Any

URL = os.environ["OSTIARY_URL"] + "/mcp"
HEADERS = {"Authorization": f"Bearer {os.environ['OSTIARY_TOKEN']}"}
_APPROVAL = re.compile(r"approval_id\W+([\w-]+)")


class Plot:
    """The calls, and what came of them.

    Attributes:
        offered: names of the tools that the model was offered.
        seen: what it was shown after each call.
        output: its last word, as the framework hands it on.
    """

    def __init__(self) -> None:
        self._calls: list[tuple[str, dict[str, Any]]] = json.loads(sys.argv[1])
        self.offered: list[str] = []
        self.seen: list[str] = []
        self.output = ""

    def next(self) -> tuple[str, dict[str, Any]] | None:
        """The next call, None where nothing is left to do."""
        if len(self.seen) >= len(self._calls):
            return None
        tool, arguments = self._calls[len(self.seen)]
        return tool, {name: self._filled(value) for name, value in arguments.items()}

    def _filled(self, value: Any) -> Any:
        if value != "@approval":
            return value
        found = [match[1] for text in self.seen for match in _APPROVAL.finditer(text)]
        return found[-1] if found else "none"

    def tell(self, **more: Any) -> None:
        """Print one line of JSON for the test."""
        told = {"offered": self.offered, "seen": self.seen, "output": self.output}
        sys.stdout.write(json.dumps(told | more) + "\n")
