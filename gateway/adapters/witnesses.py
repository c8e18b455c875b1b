"""Witnesses over HTTP: C2SP tlog-witness, ``add-checkpoint``. Whatever one answers is checked before it counts."""

import asyncio
import base64
import re
from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, Self

import httpx

from gateway.core.cosigning import Cosignature, Witness, cosignatures
from gateway.core.tlog import NoteError, split_note
from gateway.core.witnessing import OtherSize, WitnessFault

_MAX_ANSWER = 64 * 1024
_SIZE: Final = re.compile(rb"(0|[1-9][0-9]{0,18})\n")
_OTHER_SIZE = "text/x.tlog.size"
_OK, _CONFLICT, _UNPROVEN = 200, 409, 422


class HttpWitness:
    """Implements ``core.witnessing.Cosigner``; an async context manager, one connection kept alive.

    Failure mode, open by design: a witness that does not answer in ``timeout_s`` seconds, redirects, refuses or lies is
    a ``WitnessFault``, and the log goes on without it.
    """

    def __init__(self, witness: Witness, timeout_s: float = 10.0) -> None:
        """``witness`` has a URL: its submission prefix."""
        self.witness = witness
        self._url = f"{str(witness.url).rstrip('/')}/add-checkpoint"
        self._timeout_s = timeout_s
        self._stack = AsyncExitStack()
        self._client: httpx.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        # Proxies and certificates named in the environment are not the operator's word about this connection.
        client = httpx.AsyncClient(
            timeout=self._timeout_s, trust_env=False, follow_redirects=False, headers={"accept-encoding": "identity"}
        )
        self._client = await self._stack.enter_async_context(client)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def ask(self, old: int, proof: Sequence[bytes], note: str) -> Cosignature:
        """Its checked cosignature; see ``core.witnessing.Cosigner``."""
        lines = (f"old {old}", *(base64.b64encode(each).decode() for each in proof), "", note)
        status, media, body = await self._answer("\n".join(lines).encode())
        if status == _OK:
            return self._cosignature(note, body)
        said = _SIZE.fullmatch(body) if status == _CONFLICT and media == _OTHER_SIZE else None
        # The very size it was asked to go on from is no other size: what it has seen of that size is another tree.
        if said is not None and int(said[1]) != old:
            raise OtherSize(int(said[1]))
        if status in {_CONFLICT, _UNPROVEN}:
            raise WitnessFault("forked", f"{self.witness.name} does not find this log to extend what it has seen of it")
        raise WitnessFault("refused", f"{self.witness.name} answered with status {status}")

    async def _answer(self, body: bytes) -> tuple[int, str, bytes]:
        if self._client is None:
            raise WitnessFault("unreachable", f"{self.witness.name} is not asked yet")
        try:
            # The client's own timeout is for each read: a byte now and then would hold up the round for ever.
            async with asyncio.timeout(self._timeout_s):
                return await self._taken(self._client, body)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            raise WitnessFault("unreachable", f"{self.witness.name}: {type(error).__name__}") from None

    async def _taken(self, client: httpx.AsyncClient, body: bytes) -> tuple[int, str, bytes]:
        async with client.stream("POST", self._url, content=body) as response:
            taken = b""
            # As it came: little that unpacks to much never does.
            async for part in response.aiter_raw():
                taken += part
                if len(taken) > _MAX_ANSWER:
                    raise WitnessFault("nonsense", f"{self.witness.name} answers with too much")
            media = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            return response.status_code, media, taken

    def _cosignature(self, note: str, body: bytes) -> Cosignature:
        text = split_note(note)[0]
        try:
            lines = body.decode()
            # A blank line would part the text from the signatures elsewhere: it would be of a longer text.
            if "\n\n" in f"\n{lines}":
                raise NoteError("the answer is not of signature lines alone")
            found = cosignatures(f"{text}\n{lines}", (self.witness.key,))
        except (NoteError, UnicodeDecodeError) as error:
            raise WitnessFault("nonsense", f"{self.witness.name}: {error}") from None
        if not found:
            raise WitnessFault("nonsense", f"{self.witness.name} signs with another key than the configured one")
        if not found[0].holds(text):
            raise WitnessFault("nonsense", f"{self.witness.name} signs another text")
        return found[0]
