"""What mintings that were cut off may have left: looked for when their token has ended, and until it is certain."""

import itertools

import pytest

from gateway.adapters.credentials.leases import Leases
from gateway.adapters.credentials.reaper import _FIRST_PAUSE_S, _Rest
from gateway.core.errors import Unavailable
from gateway.core.leasing import Holder, Leftover, VaultCause
from gateway.parts.minting import Lending, trials
from gateway.settings import GatewaySettings
from tests.fakes.leases import Mint, fault
from tests.waiting import until

RUN = Holder("run-1", "call-1")


async def cut_off(mint: Mint, leases: Leases, run: str = "run-1", template: str = "erp-read") -> str:
    """A call whose minting was answered by nobody; the name of its token."""
    before = {*mint.vault.names.values(), *mint.vault.lost}
    found: list[str] = []

    def lose() -> None:
        found.extend(name for name in mint.vault.names.values() if name not in before)
        mint.vault.lost.update(found)
        raise fault(VaultCause.UNREACHABLE)

    mint.journal.traps["vault.minted"] = lose
    with pytest.raises(Unavailable):
        async with leases.login(template, Holder(run, "call-1"), 10):
            raise AssertionError("the call was carried out")
    del mint.journal.traps["vault.minted"]
    (name,) = found
    return name


@pytest.mark.requirement("CRED-2")
async def test_what_a_lost_minting_left_goes_with_its_token() -> None:
    """The token ends first, then the database is looked through by its name; the log says so when it is done."""
    mint = Mint()
    async with mint.leases() as leases:
        name = await cut_off(mint, leases)
        await until(lambda: mint.lines.words() == ["opened", "opened", "closed", "reaped"])
        assert (mint.vault.lost, mint.vault.reaped, mint.vault.tokens) == (set(), [name], {})
        assert mint.journal.before("vault.revoke_token", "vault.reap")
        # The token that asks is durable before it does, as every token is.
        assert mint.journal.steps.index("vault.reap") > mint.journal.steps.index("journal.opened", 2)
        assert mint.meter.pending == 0


async def test_a_login_that_was_ended_leaves_nothing_to_look_for() -> None:
    """Nobody pays for what did not happen."""
    mint = Mint()
    async with mint.leases() as leases, leases.login("erp-read", RUN, 10):
        pass
    assert "vault.reap" not in mint.journal.steps
    assert mint.lines.words()[-1] == "closed"


async def test_what_cannot_be_lost_is_not_looked_for() -> None:
    """A value that is read makes nobody in a database."""
    mint = Mint()
    async with mint.leases() as leases:
        mint.journal.fail("vault.minted", fault(VaultCause.SLOW))
        with pytest.raises(Unavailable):
            async with leases.login("api-key", RUN, 5):
                raise AssertionError("the call was carried out")
    assert "vault.reap" not in mint.journal.steps


@pytest.mark.requirement("CRED-2")
async def test_it_is_tried_again_until_the_database_is_back() -> None:
    """Said once, counted as pending, and of one template one at a time; the others' are not kept waiting."""
    mint = Mint()
    async with mint.leases() as leases:
        mint.journal.fail("vault.reap", fault(VaultCause.FAILED))
        names = [await cut_off(mint, leases, f"run-{number}") for number in (1, 2)]
        other = await cut_off(mint, leases, "run-0", "erp-write")
        await until(lambda: mint.lines.words().count("doubted") == 3)
        await until(lambda: mint.meter.pending == 3)
        assert mint.vault.lost == {*names, other}
        mint.vault.stuck = {names[0]}
        del mint.journal.traps["vault.reap"]
        await until(lambda: mint.vault.lost == {names[0]})
        mint.vault.stuck.clear()
        await until(lambda: mint.vault.lost == set())
        await until(lambda: mint.meter.pending == 0)
        assert mint.lines.words().count("doubted") == 3
        assert mint.lines.words().count("reaped") == 3


@pytest.mark.requirement("CRED-2")
async def test_what_an_earlier_process_may_have_left_is_looked_for() -> None:
    """Whether it was minting when it was killed is not known; until it is certain readiness says so."""
    mint = Mint()
    mint.lines.left = [
        Leftover("run-0", "mark-a", "old", "erp-read", "aa"),
        Leftover(None, "mark-b", "read", "api-key"),
    ]
    mint.vault.tokens, mint.vault.names, mint.vault.lost = {"old": "erp-read"}, {"old": "aa"}, {"aa"}
    mint.vault.stuck = {"aa"}
    async with mint.leases() as leases:
        await until(lambda: "doubted" in mint.lines.words())
        with pytest.raises(Unavailable) as caught:
            await leases.ping("erp-read")
        assert caught.value.cause_code == VaultCause.LEFTOVERS
        mint.vault.stuck.clear()
        await until(lambda: mint.lines.left == [])
        await leases.ping("erp-read")
    assert mint.lines.words().count("swept and reaped") == 1
    assert ("swept", "api-key", "mark-b") in mint.lines.lines
    assert (mint.vault.lost, mint.vault.reaped, mint.vault.tokens) == (set(), ["aa"], {})


@pytest.mark.requirement("CRED-2")
async def test_what_lives_is_not_reaped() -> None:
    """A leftover that cannot be ended is left alone, in the database, too."""
    mint = Mint()
    mint.lines.left = [Leftover("run-0", "mark-a", "old", "erp-read", "aa")]
    mint.vault.tokens, mint.vault.names, mint.vault.stuck = {"old": "erp-read"}, {"old": "aa"}, {"old"}
    async with mint.leases():
        await until(lambda: mint.journal.steps.count("vault.revoke_token") >= 2)
        assert "vault.reap" not in mint.journal.steps
        mint.vault.stuck.clear()
        await until(lambda: mint.vault.reaped == ["aa"])


@pytest.mark.parametrize(("trouble", "tries"), [(VaultCause.NO_ROLE, 1), (VaultCause.DENIED, 2)])
async def test_a_vault_that_was_not_set_up_for_it_is_asked_no_more(
    trouble: VaultCause, tries: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The token's end is journalled as ever, without the word that the database was looked through; the fix is told."""
    mint = Mint()
    mint.vault.trouble = trouble
    async with mint.leases() as leases:
        await cut_off(mint, leases)
        await until(lambda: mint.meter.pending == 0)
    assert mint.journal.steps.count("vault.reap") == tries
    assert "reaped" not in mint.lines.words()
    assert mint.lines.words().count("opened") == mint.lines.words().count("closed")
    assert "may be left until it has ended: mend it" in caplog.text


async def test_a_kill_in_the_middle_of_a_minting_leaves_nothing() -> None:
    """The token is ended under it, so what it may have made is looked for, though the minting is not over."""
    mint = Mint()
    async with mint.leases() as leases, leases.login("erp-read", RUN, 10):
        await leases.kill(lambda _: True, whole_runs=True)
        await until(lambda: len(mint.vault.reaped) == 1)
        assert mint.vault.tokens == {}


@pytest.mark.parametrize("is_stuck", [True, False])
async def test_stopping_looks_once_more(is_stuck: bool) -> None:
    """What is certain then is journalled; what is not is left to the next start, whose log has it open."""
    mint = Mint()
    async with mint.leases() as leases:
        mint.journal.fail("vault.reap", fault(VaultCause.FAILED))
        name = await cut_off(mint, leases)
        await until(lambda: "doubted" in mint.lines.words())
        if not is_stuck:
            del mint.journal.traps["vault.reap"]
    assert mint.vault.lost == ({name} if is_stuck else set())
    assert ("reaped" in mint.lines.words()) is not is_stuck
    assert mint.vault.tokens == {}


async def test_whether_it_would_work_is_tried_without_anything_lost() -> None:
    """For `ostiary check`: with a token of a new name; not where nothing can be lost."""
    mint = Mint()
    async with mint.leases() as leases:
        assert await leases.prove_reaping("erp-read")
        assert not await leases.prove_reaping("api-key")
        mint.vault.trouble = VaultCause.NO_ROLE
        with pytest.raises(Unavailable):
            await leases.prove_reaping("erp-read")
    assert (len(mint.vault.reaped), mint.vault.tokens) == (1, {})


@pytest.mark.parametrize(
    ("trouble", "names_users", "ok", "words"),
    [
        (None, True, True, "what a cut-off minting leaves is dropped at once"),
        (None, False, False, "users are not named by their tokens"),
        (VaultCause.NO_ROLE, True, True, "dropped by a later minting, once it has ended; for at once: mend it"),
        (VaultCause.DENIED, False, True, "dropped by a later minting, once it has ended; for at once: mend it"),
        (VaultCause.FAILED, True, False, "cannot be dropped"),
    ],
)
async def test_check_says_what_becomes_of_what_is_lost(
    trouble: VaultCause | None, names_users: bool, ok: bool, words: str
) -> None:
    """What was never set up for it passes, with the fix; what was set up and does not work does not pass."""
    given = {
        "state": "state",
        "vault": {"address": "unix:///x", "token": {"env": "X"}},
        "leases": {"erp-read": {"role": "erp-read"}},
    }
    mint = Mint()
    mint.vault.trouble, mint.vault.names_users = trouble, names_users
    async with mint.leases() as leases:
        _, found = await trials(GatewaySettings.model_validate(given), Lending(leases), {}, ())
    assert (found.part, found.ok) == ("lease:erp-read", ok)
    assert words in found.text


def patient(monkeypatch: pytest.MonkeyPatch, most_s: float = 3600.0) -> None:
    """What has failed is left alone for an hour; where something new has come, for so long."""
    monkeypatch.setattr("gateway.adapters.credentials.reaper._FIRST_PAUSE_S", 3600.0)
    monkeypatch.setattr("gateway.adapters.credentials.reaper._MOST_PAUSE_S", most_s)


@pytest.mark.requirement("CRED-2")
async def test_calls_that_go_on_failing_do_not_make_it_ask_more_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a database is down each call brings a doubt: it is asked as often as for one; other templates' go on."""
    patient(monkeypatch)
    mint = Mint()
    async with mint.leases() as leases:
        mint.vault.stuck = {await cut_off(mint, leases)}
        mint.journal.fail("vault.reap", fault(VaultCause.FAILED))
        await until(lambda: "doubted" in mint.lines.words())
        for number in range(2, 8):
            await cut_off(mint, leases, f"run-{number}")
        await until(lambda: mint.meter.pending == 7)
        del mint.journal.traps["vault.reap"]
        asked = mint.journal.steps.count("vault.reap")
        other = await cut_off(mint, leases, "run-0", "erp-write")
        await until(lambda: mint.vault.reaped == [other])
        assert (asked, mint.journal.steps.count("vault.reap")) == (1, 2)
        mint.vault.stuck.clear()
    assert mint.vault.lost == set(), "all of it is tried once more at the end"


def test_what_is_stuck_for_days_is_asked_ever_more_rarely() -> None:
    """Each try is two records: few tries on the first day, 24 on each later one; what is mended is noticed in time."""
    rest, times = _Rest(0.0, _FIRST_PAUSE_S, _FIRST_PAUSE_S), list[float]()
    while rest.until < 3 * 86_400:
        times.append(rest.until)
        rest.again(rest.until, 0.0)
    assert len([at for at in times if at < 60]) == 8, "as fast as ever in its first minute"
    assert len([at for at in times if at < 86_400]) < 70
    assert len([at for at in times if at >= 2 * 86_400]) == 24
    gaps = [round(later - at, 6) for at, later in itertools.pairwise(times)]
    assert gaps == sorted(gaps)
    assert all(gap <= max(15, at / 4 + 1e-6) for gap, at in zip(gaps, times, strict=False))


async def tried(mint: Mint, cause: VaultCause, times: int) -> None:
    """Wait until it has failed for that cause so many times more."""
    before = mint.meter.faults.count(("reap", cause))
    await until(lambda: mint.meter.faults.count(("reap", cause)) >= before + times)


@pytest.mark.requirement("CRED-2")
async def test_each_try_is_counted_and_each_cause_is_journalled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever comes and goes, for however long; and so is the recovery."""
    for name in ("_FIRST_PAUSE_S", "_MOST_PAUSE_S"):
        monkeypatch.setattr(f"gateway.adapters.credentials.reaper.{name}", 0.001)
    monkeypatch.setattr("gateway.adapters.credentials.reaper._SHARE", 0.0)
    mint = Mint()
    async with mint.leases() as leases:
        for number, cause in enumerate((VaultCause.FAILED, VaultCause.SLOW, VaultCause.FAILED)):
            mint.journal.fail("vault.reap", fault(cause))
            if number == 0:
                await cut_off(mint, leases)
            await tried(mint, cause, 3)
        said = [cause for word, cause, _ in mint.lines.lines if word == "doubted"]
        assert said == [VaultCause.FAILED, VaultCause.SLOW]
        del mint.journal.traps["vault.reap"]
        await until(lambda: mint.meter.pending == 0)
        assert mint.lines.words().count("reaped") == 1
    assert mint.lines.words().count("doubted") == 2
    assert mint.lines.words().count("opened") == mint.lines.words().count("closed") + 1
    assert mint.meter.faults.count(("mint", VaultCause.UNREACHABLE)) == 1


@pytest.mark.requirement("CRED-2")
async def test_a_minting_that_goes_well_ends_the_waiting_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is back: what is stuck is asked about at once. That it stays stuck is not asked at each minting."""
    patient(monkeypatch)
    mint = Mint()
    async with mint.leases() as leases:
        mint.journal.fail("vault.reap", fault(VaultCause.FAILED))
        first = await cut_off(mint, leases)
        await until(lambda: mint.meter.faults.count(("reap", "vault_failed")) == 1)
        async with leases.login("erp-write", RUN, 10):
            pass  # of another template: it says nothing
        for _ in range(3):
            async with leases.login("erp-read", RUN, 10):
                await until(lambda: mint.meter.faults.count(("reap", "vault_failed")) == 2)
        second = await cut_off(mint, leases, "run-2")
        del mint.journal.traps["vault.reap"]
        assert mint.vault.lost == {first, second}
        async with leases.login("erp-read", RUN, 10):
            await until(lambda: mint.vault.lost == set())
        assert mint.meter.faults.count(("reap", "vault_failed")) == 2


@pytest.mark.requirement("CRED-2")
async def test_what_is_new_does_not_wait_for_what_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the first has been in vain; that one is not asked about more often for it."""
    patient(monkeypatch, 0.01)
    mint = Mint()
    async with mint.leases() as leases:
        mint.journal.fail("vault.reap", fault(VaultCause.FAILED))
        stuck = await cut_off(mint, leases)
        await until(lambda: mint.meter.faults.count(("reap", "vault_failed")) == 1)
        mint.vault.stuck = {stuck}
        del mint.journal.traps["vault.reap"]
        new = await cut_off(mint, leases, "run-2")
        await until(lambda: mint.vault.reaped == [new])
        await until(lambda: mint.meter.faults.count(("reap", "vault_failed")) == 2)
        assert mint.vault.lost == {stuck}
        mint.vault.stuck.clear()
