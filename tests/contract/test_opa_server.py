"""The OPA backend on a real OPA server: killed, hanging, with a new bundle, with another one, with two."""

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from deploy.servers.opa import opa
from gateway.adapters.rego.bundles import archive
from gateway.adapters.rego.bundles.building import bundle_archive
from gateway.core.bundle import BundleError
from gateway.core.decision import Effect
from tests.opa import required
from tests.opa_questions import BUNDLE, DOCUMENT, OTHER, allowed, refused
from tests.policy_engines import PATIENT, decide, engine_at
from tests.rego_demo import saying as asking
from tests.rego_demo import until

BRISK = replace(PATIENT, deadline_s=0.3)
LOOP = asking("loop")


async def test_opa_that_is_killed_in_the_middle_of_a_question() -> None:
    """Its question is unavailable, and so is everything after it."""
    required()
    with opa({"ostiary": bundle_archive(BUNDLE)}) as server:
        async with engine_at(server.url, BUNDLE) as asked:
            question = asyncio.create_task(refused(asked.evaluate("d", [LOOP])))
            await until(lambda: _is_working(server.process.process.pid))
            os.kill(server.process.process.pid, signal.SIGKILL)
            assert "cannot be reached" in await question
            await refused(asked.ping())


async def test_opa_that_hangs_is_left_at_the_deadline() -> None:
    """A policy that takes too long costs its own question only."""
    required()
    with opa({"ostiary": bundle_archive(BUNDLE)}, unix=True) as server:
        async with engine_at(server.url, BUNDLE, BRISK) as asked:
            assert "deadline" in await refused(asked.evaluate("d", [LOOP]))
        async with engine_at(server.url, BUNDLE) as asked:
            (decision,) = await decide(asked, DOCUMENT)
            assert decision.effect is Effect.ALLOW


async def test_real_opa_takes_up_a_new_bundle() -> None:
    """The gateway is first, OPA follows; whoever is asked in between is decided by one of the two, and named."""
    required()
    with opa({"ostiary": bundle_archive(BUNDLE)}) as server:
        async with engine_at(server.url, BUNDLE) as asked:
            await asked.serve(OTHER, allowed)
            assert (await decide(asked, DOCUMENT))[0].revision == BUNDLE.revision
            (server.folder / "next").write_bytes(bundle_archive(OTHER))
            (server.folder / "next").replace(server.folder / "ostiary.tar.gz")
            seen = [BUNDLE.revision]
            async with asyncio.timeout(20):
                while seen[-1] != OTHER.revision:
                    seen += [decision.revision for decision in await decide(asked, DOCUMENT, DOCUMENT)]
            assert set(seen) == {BUNDLE.revision, OTHER.revision}


async def test_real_opa_with_another_bundle_is_refused() -> None:
    """What it says of itself is compared, not what its bundle is called."""
    required()
    with (
        opa({"ostiary": bundle_archive(OTHER)}) as server,
        pytest.raises(BundleError, match=f"{OTHER.revision}.*{BUNDLE.revision}"),
    ):
        async with engine_at(server.url, BUNDLE):
            pass


async def test_real_opa_with_two_bundles_is_refused() -> None:
    """Another bundle could hold what the gateway never examined."""
    required()
    files = archive.read("b", bundle_archive(BUNDLE)) | {".manifest": b'{"revision": "r", "roots": ["gateway"]}'}
    other = {".manifest": b'{"revision": "o", "roots": ["other"]}', "other/data.json": b"{}"}
    bundles = {"ostiary": archive.write(files), "other": archive.write(other)}
    with opa(bundles) as server, pytest.raises(BundleError, match="2 bundles"):
        async with engine_at(server.url, BUNDLE):
            pass


async def test_nothing_can_be_added_beside_the_bundle() -> None:
    """A package put into OPA by its REST interface would speak under the bundle's revision: it is refused."""
    required()
    rule = 'package gateway.policies.evil\n\nallow contains {"id": "evil.yes", "msg": "m"} if true\n'
    with opa({"ostiary": bundle_archive(BUNDLE)}) as server:
        async with httpx.AsyncClient(base_url=server.url) as client:
            for path, body in (("/v1/policies/evil", rule), ("/v1/data/gateway/scope", "{}"), ("/v1/data/house", "{}")):
                answer = await client.put(path, content=body)
                assert answer.status_code == 400
        async with engine_at(server.url, BUNDLE) as asked:
            (decision,) = await decide(asked, asking("nothing"))
            assert decision.reasons[0].id == "default.no_allow"


def _is_working(pid: int) -> bool:
    # Half a second of processor time since it was started is spent on the loop.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) > 100
