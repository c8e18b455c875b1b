"""Where in a bundle stands what breaks the contract of decisions: file and line for whoever has to mend it."""

import re

from gateway.core.bundle import Bundle
from gateway.core.exports import misshapen


def culprit(bundle: Bundle, result: bytes) -> tuple[str, str]:
    """(``file:line``, what is wrong) of an answer that is no decision; the package that joins all where no other is."""
    found = misshapen(result)
    if not found:
        return _place(bundle, "gateway.main", "decision"), " of data.gateway.main.decision"
    part, package, words = found
    return _place(bundle, f"gateway.policies.{package}", part), f": {part} of package {package}: {words}"


def _place(bundle: Bundle, package: str, rule: str) -> str:
    for module in bundle.modules:
        if re.search(rf"^\s*package\s+{re.escape(package)}\s*(#.*)?$", module.text, re.MULTILINE):
            at = re.search(rf"^(default\s+)?{re.escape(rule)}\b", module.text, re.MULTILINE)
            return f"{module.name}:{module.text.count(chr(10), 0, at.start()) + 1 if at else 1}"
    return f"package {package}"
