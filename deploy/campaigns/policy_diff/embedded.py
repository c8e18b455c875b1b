"""The embedded engine without its processes: the worker's own code and the memory before it, on one thread."""

from deploy.campaigns.policy_diff.oracle import Spoken
from gateway.adapters.rego import worker
from gateway.adapters.rego.frames import Verdict, bundle_document
from gateway.adapters.rego.memory import Memory
from gateway.adapters.rego.routing import Routes
from gateway.core.bundle import Bundle


class Embedded:
    """Answers from one bundle at a time, and remembers what it may, as ``RegoEngine`` does.

    Attributes:
        recalled: how many answers came from memory.
    """

    def __init__(self, routes: Routes) -> None:
        """``routes`` are those of the bundles' modules; their data may differ."""
        self._routes = routes
        self._memory = Memory(routes)
        self._policy: worker._Policy | None = None
        self.recalled = 0

    def load(self, bundle: Bundle) -> None:
        """Answer from ``bundle``, and forget the one before."""
        self._policy, _version = worker.load(bundle_document(bundle, self._routes))
        self._memory = Memory(self._routes)

    def ask(self, document: bytes) -> Spoken:
        """What ``data.gateway.main.decision`` is for this input."""
        key = self._memory.key(document)
        known = self._memory.recall(key)
        if known is not None:
            self.recalled += 1
            return Spoken(known.result)
        assert self._policy is not None
        status, idle, value = worker._evaluate(self._policy, self._memory.shared(key), document.decode())  # noqa: SLF001
        if status != worker.ANSWERED:
            return Spoken(None, "engine.undefined" if status == worker.UNDEFINED else "engine.error", value.decode())
        self._memory.keep(key, Verdict(value, None, idle=idle))
        return Spoken(value)
