"""One caller's wish to hear when one resource changes: made by a surface, kept by a connector, ended by either.

It holds no more than one piece of news, that there is some: a resource that changes a thousand times while nobody
listens has changed.
"""

from collections.abc import Callable


class Subscription:
    """A wish, until it is over. Upstreams do not see it; what they say of other addresses does not reach it.

    Attributes:
        is_news: whether it was told of a change that nobody has taken yet.
        is_over: whether nothing more is to be heard by it.
    """

    __slots__ = ("_end", "_wake", "is_news", "is_over")

    def __init__(self, wake: Callable[[], None]) -> None:
        """``wake`` is called when there is news, or no more to come; it may not raise."""
        self.is_news = self.is_over = False
        self._wake = wake
        self._end: Callable[[], None] | None = None

    def begun(self, end: Callable[[], None]) -> None:
        """The connector follows the resource, until ``end`` is called: at once where nobody wants it any more."""
        if self.is_over:
            end()
        else:
            self._end = end

    def updated(self) -> None:
        """The resource has changed, or may have while nobody looked."""
        if not self.is_over:
            self.is_news = True
            self._wake()

    def lost(self) -> None:
        """The connector follows it no more: what it missed is not known, and that is the last news."""
        self._end = None
        if not self.is_over:
            self.is_news = self.is_over = True
            self._wake()

    def end(self) -> None:
        """Its caller wants to hear no more; more than once is once."""
        self.is_over, self.is_news = True, False
        end, self._end = self._end, None
        if end is not None:
            end()
