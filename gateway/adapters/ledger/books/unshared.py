"""Keys that were handed over on this log, at a gateway that takes no part in that: it must not go on with an old one.

There is no vault here to fetch a key from. What is in the folder and agreed upon comes into force; where the key in
force is not there, the gateway does not start, or it would sign what the others do not take, and refuse what they sign.
"""

from collections.abc import Sequence
from contextlib import suppress

from gateway.adapters.ledger.books.key_sharing import LACKING
from gateway.adapters.ledger.books.rotations import Books
from gateway.adapters.ledger.drafting import Subject
from gateway.adapters.ledger.storage.share_records import shares_of
from gateway.core.errors import Conflict, Unavailable
from gateway.core.key_sharing import Handing, Share, ShareAction, SharedKey, genuine, share_body
from gateway.core.records import EventType
from gateway.core.rotation import KeyKind

_SET = "set [rotation] shared_keys and [vault] as the other gateways on this log have them"


class UnsharedKeys:
    """Implements ``core.key_sharing.KeyHandover`` where keys are handed to nobody."""

    def __init__(self, books: Books) -> None:
        self._books = books

    async def hand_over(self, key: Handing) -> None:
        """Refuse; see ``core.key_sharing.KeyHandover``."""
        raise Conflict(f"the {key.offer.kind} is handed to nobody from here: {_SET}", cause_code="key_share")

    async def is_open(self, kind: KeyKind, public: bytes) -> bool:
        """See ``core.key_sharing.KeyHandover``."""
        shares = await self._books.reader.ask(shares_of)
        return any(one.name == (kind, public) and one.state is not ShareAction.WITHDRAWN for one in shares)

    async def settle(self, holder: SharedKey, in_force: bytes) -> None:
        """Let come into force what the log says; ``in_force``: the public half of the key that signs here.

        Only what that key, or one after it, has signed for counts: whoever can write the database and nothing else
        keeps no gateway from starting, and a key that this gateway alone has put in place since is left alone.

        Raises:
            Unavailable: the key was replaced, and the new one is not here: what to do. Or the log is not there.
        """
        for share in await self._later(holder, in_force):
            # This gateway said that it has the key, and keeps it no longer: the others must not count on that.
            if share.state is ShareAction.OFFERED and self._books.ledger.replica in share.taken:
                with suppress(Conflict):  # it was agreed upon, or withdrawn, just now
                    await self._withdraw(share)
        agreed = [share for share in await self._later(holder, in_force) if share.state is ShareAction.AGREED]
        if not agreed:
            return
        newest = agreed[-1].offer.public
        if not holder.has(newest):
            raise Unavailable(
                f"the {holder.kind} in this gateway's folder was replaced while it was down: {_SET}, or copy "
                f"{holder.copying(newest)} from the folder keys of another one",
                cause_code=LACKING,
            )
        await holder.follow(agreed)

    async def _later(self, holder: SharedKey, in_force: bytes) -> Sequence[Share]:
        shares = [one for one in await self._books.reader.ask(shares_of) if one.offer.kind is holder.kind]
        return genuine(shares, self._books.scribe.keys.name.text, [in_force])

    async def _withdraw(self, share: Share) -> None:
        body = share_body(ShareAction.WITHDRAWN, share.offer, self._books.ledger.replica)
        await self._books.ledger.append([self._books.scribe.draft(EventType.ROTATION_SHARED, Subject(), body)])
