"""The Broker port over static credentials."""

import os
from pathlib import Path

import pytest

from gateway.adapters.credentials import CredentialBroker, StaticCredential, StaticCredentials
from gateway.core.call import Intent, Resolved
from gateway.core.errors import Unavailable
from gateway.core.known import KnownValues
from tests.evidence import make_call, make_caller, make_intent, make_permit, make_tool

VALUE = "s3cr3t-credential"


def intent(credential: str | None) -> Intent:
    """The intent of a tool that names ``credential``."""
    tool = make_tool(credential=credential)
    return make_intent(make_permit(Resolved(make_caller(make_call(tool.fqn)), tool, None)))


def static(
    known: KnownValues, environment: dict[str, str] | None = None, **credentials: StaticCredential
) -> StaticCredentials:
    """Made-up credentials."""
    return StaticCredentials(credentials, known, environment if environment is not None else {"ERP_KEY": VALUE})


def broker(
    known: KnownValues, environment: dict[str, str] | None = None, **credentials: StaticCredential
) -> CredentialBroker:
    """A broker over made-up credentials."""
    return CredentialBroker(static(known, environment, **credentials))


async def unavailable(subject: CredentialBroker, name: str = "erp") -> Unavailable:
    """Why there is no lease."""
    with pytest.raises(Unavailable) as caught:
        async with subject.lease(intent(name)):
            raise AssertionError("there is a lease")
    assert VALUE not in caught.value.detail
    return caught.value


async def test_the_value_is_known_before_the_lease_is() -> None:
    """The header is prefix and value; the redactor knows the value from then on."""
    known = KnownValues()
    subject = broker(known, erp=StaticCredential(header="X-Api-Key", env="ERP_KEY", prefix="Key "))
    wanted = intent("erp")
    async with subject.lease(wanted) as lease:
        assert lease.intent is wanted
        assert lease.headers == {"X-Api-Key": f"Key {VALUE}"}
        assert known.needles.values == {VALUE}
        assert VALUE not in repr(lease)
    async with subject.lease(intent("erp")):
        assert known.needles.values == {VALUE}


async def test_a_value_that_was_forgotten_is_known_again_before_its_lease() -> None:
    """However often it was leased before: what the redactor does not know is not handed out."""
    known = KnownValues()
    subject = broker(known, erp=StaticCredential(env="ERP_KEY"))
    for _ in range(3):
        async with subject.lease(intent("erp")) as lease:
            assert lease.headers == {"Authorization": VALUE}
            assert known.needles.values == {VALUE}
        known.remove(VALUE)
        assert known.needles.values == frozenset()


async def test_a_tool_without_credential_gets_none() -> None:
    """No header, nothing read."""
    async with broker(KnownValues(), {}).lease(intent(None)) as lease:
        assert lease.headers == {}


async def test_a_rotated_file_counts_from_the_next_call_on(tmp_path: Path) -> None:
    """Old and new value are both kept out of outputs; white space around them is none of them."""
    file, known = tmp_path / "key", KnownValues()
    subject = broker(known, erp=StaticCredential(file=file))
    for value in ("first-value", "second-value"):
        file.write_text(f"{value}\n")
        async with subject.lease(intent("erp")) as lease:
            assert lease.headers == {"Authorization": value}
    assert known.needles.values == {"first-value", "second-value"}


@pytest.mark.parametrize(
    "value", ["", "  \n", "short", "two\nlines-of-it", "caf\u00e9-credential", "nul\x00-credential"]
)
async def test_values_that_cannot_be_sent_or_kept_secret_are_unavailable(value: str) -> None:
    """Empty, too short to redact, or not fit for a header field: nothing is sent."""
    error = await unavailable(broker(KnownValues(), {"ERP_KEY": value}, erp=StaticCredential(env="ERP_KEY")))
    assert error.cause_code == "credential"


async def test_a_credential_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    """Unknown name, missing variable, missing file, a folder, bytes that are no text, neither env nor file."""
    (tmp_path / "bytes").write_bytes(b"\xff\xfe" * 20)
    for credential in (
        StaticCredential(env="NOT_SET"),
        StaticCredential(file=tmp_path / "missing"),
        StaticCredential(file=tmp_path),
        StaticCredential(file=tmp_path / "bytes"),
        StaticCredential(),
    ):
        await unavailable(broker(KnownValues(), erp=credential))
    await unavailable(broker(KnownValues()), "another")


async def test_a_pipe_in_place_of_the_file_does_not_hold_the_gateway(tmp_path: Path) -> None:
    """Only regular files are read."""
    os.mkfifo(tmp_path / "pipe")
    error = await unavailable(broker(KnownValues(), erp=StaticCredential(file=tmp_path / "pipe")))
    assert "no regular file" in error.detail


async def test_ping_reads_every_credential(tmp_path: Path) -> None:
    """Ready when all can be read; otherwise the failing one is named."""
    good = StaticCredential(env="ERP_KEY")
    await broker(KnownValues(), good=good).ping()
    with pytest.raises(Unavailable, match="'gone'"):
        await broker(KnownValues(), good=good, gone=StaticCredential(file=tmp_path / "gone")).ping()


def test_credentials_are_known_before_their_first_use() -> None:
    """What one upstream is called with must not come back from another before the first call."""
    known = KnownValues()
    static(known, erp=StaticCredential(env="ERP_KEY"), gone=StaticCredential(env="NOT_SET")).acquaint()
    assert known.needles.values == {VALUE}
