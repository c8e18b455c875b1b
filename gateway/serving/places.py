"""The connections of one process, within bounds: which of them has to go where another one comes."""

import resource
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Protocol

from gateway.edge.ears import Stopping
from gateway.serving.whole import Standing

# Files for the log, its readers, policy workers and upstreams; connections never get these.
_RESERVE = 256
_LEAST = 16


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one process takes from the network.

    Attributes:
        connections: at a time, all clients together; never more than the process may open files for.
        connections_each: at a time of one client address, of those that have shown no good credential.
        head_s: seconds a request line with its header fields may take to arrive, from its first byte or from the
            connection's beginning.
        head_bytes: longest request line and header fields together.
        body_s: seconds a body may take to arrive.
        idle_s: seconds a connection is kept between two requests.
    """

    connections: int = 4096
    connections_each: int = 256
    head_s: float = 10.0
    head_bytes: int = 32 * 1024
    body_s: float = 35.0
    idle_s: int = 15


class Connection(Protocol):
    """One of them."""

    @property
    def is_answering(self) -> bool:
        """Whether a whole request is being worked on."""

    def end(self) -> None:
        """Close without another word; its place is free at once."""


@dataclass(slots=True)
class Places:
    """The connections of one process: strangers oldest first, also by client address, and proven ones by last use.

    ``standing`` is what the answers on all of them begin with; ``stopping`` tells those that have no end by themselves
    when the server is to stop.
    """

    bounds: Bounds
    stopping: Stopping = field(default_factory=Stopping)
    most: int = field(init=False)
    taken: int = 0
    standing: Standing = field(default_factory=Standing)
    _strangers: OrderedDict[Connection, str] = field(default_factory=OrderedDict)
    _proven: OrderedDict[Connection, None] = field(default_factory=OrderedDict)
    _by_address: dict[str, OrderedDict[Connection, None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Never promise more connections than there are files."""
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        room = self.bounds.connections if files == resource.RLIM_INFINITY else files - _RESERVE
        self.most = max(min(self.bounds.connections, room), _LEAST)

    def take(self, connection: Connection, address: str) -> bool:
        """A place for a new connection; an older one may have to go for it. False where there is none."""
        own = self._by_address.get(address)
        if own is not None and len(own) >= self.bounds.connections_each and not self._evict(own):
            return False
        if self.taken >= self.most and not (self._evict(self._strangers) or self._evict(self._proven)):
            return False
        self.taken += 1
        self._strangers[connection] = address
        self._by_address.setdefault(address, OrderedDict())[connection] = None
        return True

    def leave(self, connection: Connection) -> None:
        """The connection is over."""
        self.taken -= 1
        self._forget(connection)
        self._proven.pop(connection, None)

    def prove(self, connection: Connection) -> None:
        """The connection's client has a good credential: it no longer counts among its address's strangers.

        Where there are no strangers left to go, the proven connection that was used longest ago does.
        """
        if connection not in self._proven:
            self._forget(connection)
            self._proven[connection] = None
        self._proven.move_to_end(connection)

    def _forget(self, connection: Connection) -> None:
        address = self._strangers.pop(connection, None)
        if address is None:
            return
        own = self._by_address[address]
        del own[connection]
        if not own:
            del self._by_address[address]

    def _evict(self, among: OrderedDict[Connection, Any]) -> bool:
        waiting = next((connection for connection in among if not connection.is_answering), None)
        if waiting is None:
            return False
        waiting.end()
        return True
