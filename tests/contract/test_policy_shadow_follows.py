"""A candidate in the shadow follows its folder: what is changed there is compared from then on, while calls go on."""

import asyncio
import logging
from pathlib import Path

import pytest

from gateway.core.bundle import BundleError
from gateway.parts.shadowing import served
from gateway.settings import GatewaySettings
from gateway.settings.policy import PolicySection, ShadowSection
from tests.policy_engines import decide
from tests.rego_demo import saying, until

ALLOW = 'package gateway.policies.desk\n\nallow contains {"id": "desk.ok", "msg": "ok"} if input\n'


def house(folder: Path, rules: str = ALLOW) -> tuple[Path, GatewaySettings, ShadowSection]:
    """A folder with one package, which is the candidate."""
    desk = folder / "desk"
    desk.mkdir()
    (desk / "desk.rego").write_text(rules)
    section = ShadowSection(bundles=(desk,))
    policy = PolicySection(shadow=section, reload_s=0.001, deadline_ms=5000)
    return desk / "desk.rego", GatewaySettings(state=folder / "state", policy=policy), section


async def test_a_candidate_follows_its_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is broken is logged once and leaves the last good candidate; what is good comes in its place."""
    file, settings, section = house(tmp_path)
    looks: asyncio.Queue[None] = asyncio.Queue()

    async def tick(seconds: float) -> None:
        assert seconds == 0.001
        await looks.get()

    async with served(settings, section, tick) as engine:

        async def first_reason() -> str:
            return (await decide(engine, saying("x")))[0].reasons[0].id

        assert await first_reason() == "desk.ok"
        file.write_text(ALLOW.replace("desk.ok", "desk ok"))
        with caplog.at_level(logging.ERROR):
            for _ in range(3):
                looks.put_nowait(None)
            await until(lambda: "cannot be served" in caplog.text)
            await until(looks.empty)
        assert caplog.text.count("cannot be served") == 1
        assert await first_reason() == "desk.ok"
        file.write_text(ALLOW.replace("desk.ok", "desk.new"))
        async with asyncio.timeout(20):
            while await first_reason() != "desk.new":
                looks.put_nowait(None)
    assert not (tmp_path / "state").exists()


async def test_a_candidate_that_cannot_be_served_at_the_start_is_said_with_its_place(tmp_path: Path) -> None:
    """By file and line, as for the policy in force."""
    _, settings, section = house(tmp_path, "package gateway.policies.desk\n\ndeny := true\n")
    with pytest.raises(BundleError, match=r"desk\.rego:3: GW005"):
        async with served(settings, section):
            pass
