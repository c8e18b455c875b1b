"""How deep brackets nest in a module: looked at before it is parsed, as the parser's time doubles with each level."""

import re
from typing import Final

from gateway.adapters.rego.finding import Finding
from gateway.core.bundle import Module

MAX_NESTING: Final = 12
_TOKEN: Final = re.compile(r'"(?:\\.|[^"\\\n])*"|`[^`]*`|#[^\n]*|[\[\]{}]')


def too_deep(module: Module) -> Finding | None:
    """Where the module's ``[`` and ``{`` first nest deeper than ``MAX_NESTING``; strings and comments do not count."""
    depth = 0
    for token in _TOKEN.finditer(module.text):
        if token[0] in "[{":
            depth += 1
        elif token[0] in "]}":
            depth = max(0, depth - 1)
        if depth > MAX_NESTING:
            line = module.text.count("\n", 0, token.start()) + 1
            return Finding(module.name, line, "GW000", f"brackets nest deeper than {MAX_NESTING} levels")
    return None
