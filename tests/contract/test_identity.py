"""The Identity port and the local issuer: good tokens in, principals out."""

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.adapters.identity import Grant, KeyFileError, LocalIdentity, LocalIssuer, Trust, create_key, load_key
from gateway.core.call import Call, Channel, Live
from gateway.core.canonical import Json, arguments
from gateway.core.errors import InvalidArguments, Unauthenticated, Unavailable
from tests.clock import StepClock

KEY = Ed25519PrivateKey.generate()
TRUST = Trust("urn:ostiary:local", frozenset({"ostiary", "http://127.0.0.1:8470"}))
FULL = Grant(
    user="alice@example.org",
    agent="ap-agent",
    scopes=frozenset({"tools", "runs"}),
    groups=frozenset({"finance", "eu"}),
    ttl_s=600,
    run="01920000-0000-7000-8000-000000000000",
)


@pytest.fixture
def clock() -> StepClock:
    """Time that stands still."""
    return StepClock()


@pytest.fixture
def issuer(clock: StepClock) -> LocalIssuer:
    """The issuer under test."""
    return LocalIssuer(clock, TRUST, KEY)


@pytest.fixture
def identity(clock: StepClock) -> LocalIdentity:
    """A verifier that trusts the issuer."""
    return LocalIdentity(clock, TRUST, [KEY.public_key()])


def call_with(token: str) -> Call:
    """A call that carries ``token``."""
    return Call("id", 0, Live(token), Channel.REST, "a.b", arguments(Json({}, {})))


async def test_a_token_authenticates_as_the_principal_it_was_issued_for(
    issuer: LocalIssuer, identity: LocalIdentity
) -> None:
    """Every field of the principal survives the way through the token."""
    principal = issuer.principal(FULL)
    assert await identity.authenticate(call_with(issuer.issue(principal))) == principal
    assert (principal.agent, principal.run, principal.auth_method) == ("ap-agent", FULL.run, "local")


async def test_a_persons_token_names_no_agent(issuer: LocalIssuer, identity: LocalIdentity) -> None:
    """Without an agent the principal is the person."""
    token = issuer.issue(issuer.principal(Grant("alice", scopes=frozenset({"runs", "audit"}))))
    principal = await identity.authenticate(call_with(token))
    assert (principal.agent, principal.run, principal.groups) == (None, None, frozenset())
    assert principal.scopes == {"runs", "audit"}


def test_each_token_has_an_id_of_its_own(issuer: LocalIssuer) -> None:
    """Two tokens for the same grant differ in jti."""
    assert issuer.principal(FULL).jti != issuer.principal(FULL).jti


def test_a_token_ends_exactly_at_its_expiry_cached_or_not(
    clock: StepClock, issuer: LocalIssuer, identity: LocalIdentity
) -> None:
    """One microsecond before its end it is good, at its end it is not; remembering it changes nothing."""
    seen, unseen = (issuer.issue(issuer.principal(FULL)) for _ in range(2))
    assert identity.verify(seen).user == FULL.user
    clock.advance(599.999_999)
    assert identity.verify(seen).user == FULL.user
    clock.advance(0.000_001)
    for token in (seen, unseen):
        with pytest.raises(Unauthenticated) as refusal:
            identity.verify(token)
        assert refusal.value.cause_code == "expired"


def test_remembered_tokens_are_bounded(clock: StepClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """More live tokens than the cache holds are all still verified."""
    monkeypatch.setattr("gateway.adapters.identity.local._MAX_CACHED", 4)
    issuer, identity = LocalIssuer(clock, TRUST, KEY), LocalIdentity(clock, TRUST, [KEY.public_key()])
    tokens = [issuer.issue(issuer.principal(FULL)) for _ in range(20)]
    for token in [*tokens, *tokens]:
        assert identity.verify(token).user == FULL.user
        assert len(identity._good) <= 4


def test_room_is_made_by_forgetting_expired_tokens_first(clock: StepClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens past their end leave the cache before live ones do."""
    monkeypatch.setattr("gateway.adapters.identity.local._MAX_CACHED", 4)
    issuer, identity = LocalIssuer(clock, TRUST, KEY), LocalIdentity(clock, TRUST, [KEY.public_key()])
    for ttl_s in (10, 10, 10, 1000):
        identity.verify(issuer.issue(issuer.principal(Grant("u", ttl_s=ttl_s))))
    clock.advance(20)
    identity.verify(issuer.issue(issuer.principal(Grant("u", ttl_s=1000))))
    assert len(identity._good) == 2


def test_the_old_key_is_good_while_it_is_listed(clock: StepClock) -> None:
    """Two verification keys accept both issuers' tokens; dropping one refuses its tokens."""
    old, new = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    token = LocalIssuer(clock, TRUST, old).issue(LocalIssuer(clock, TRUST, old).principal(FULL))
    both = LocalIdentity(clock, TRUST, [new.public_key(), old.public_key()])
    assert both.verify(token).user == FULL.user
    with pytest.raises(Unauthenticated) as refusal:
        LocalIdentity(clock, TRUST, [new.public_key()]).verify(token)
    assert refusal.value.cause_code == "signature"


def test_any_of_the_audiences_will_do(clock: StepClock, issuer: LocalIssuer) -> None:
    """A verifier that knows one of the token's audiences accepts it."""
    verifier = LocalIdentity(clock, Trust(TRUST.issuer, frozenset({"ostiary", "other"})), [KEY.public_key()])
    assert verifier.verify(issuer.issue(issuer.principal(FULL))).user == FULL.user


@pytest.mark.parametrize(
    ("grant", "cause"),
    [
        (Grant(""), "name"),
        (Grant("a|b"), "name"),
        (Grant("alice", "ag ent"), "name"),
        (Grant("alice", ""), "name"),
        (Grant("alice\x00"), "name"),
        (Grant("аlice"), "name"),  # noqa: RUF001 - a Cyrillic look-alike
        (Grant("a" * 129), "name"),
        (Grant("alice", groups=frozenset({""})), "name"),
        (Grant("alice", run="a\nb"), "name"),
        (Grant("alice", scopes=frozenset({"root"})), "scope"),
        (Grant("alice", ttl_s=0), "ttl"),
        (Grant("alice", ttl_s=-5), "ttl"),
        (Grant("alice", ttl_s=10**12), "ttl"),
    ],
)
def test_no_token_is_issued_that_would_be_refused(issuer: LocalIssuer, grant: Grant, cause: str) -> None:
    """A grant outside the rules is refused when issuing, not when using."""
    with pytest.raises(InvalidArguments) as refusal:
        issuer.principal(grant)
    assert refusal.value.cause_code == cause


def test_an_issuer_speaks_for_itself_only(clock: StepClock, issuer: LocalIssuer) -> None:
    """A principal of another issuer gets no token."""
    foreign = LocalIssuer(clock, Trust("urn:other", frozenset({"ostiary"})), KEY).principal(FULL)
    with pytest.raises(InvalidArguments):
        issuer.issue(foreign)


async def test_identity_without_keys_is_not_ready(clock: StepClock, identity: LocalIdentity) -> None:
    """Readiness says when no token can be verified."""
    await identity.ping()
    with pytest.raises(Unavailable):
        await LocalIdentity(clock, TRUST, []).ping()


@pytest.mark.parametrize("trust", [("", {"a"}, 30), ("i", set(), 30), ("i", {"a"}, 31), ("i", {"a"}, -1)])
def test_trust_that_would_check_nothing_is_refused(trust: tuple[str, set[str], int]) -> None:
    """An empty issuer or audience or a wide skew is a configuration error."""
    with pytest.raises(ValueError, match="must be set"):
        Trust(trust[0], frozenset(trust[1]), trust[2])


def test_the_token_never_shows_in_a_call(issuer: LocalIssuer) -> None:
    """The representation of a call, as in a traceback, does not hold its token."""
    token = issuer.issue(issuer.principal(FULL))
    assert token not in repr(call_with(token))


class TestKeyFiles:
    """Keys on disk belong to their owner."""

    def test_a_key_is_made_for_its_owner_only_and_read_back(self, tmp_path: Path) -> None:
        """Folder 0700, file 0600, same key."""
        path = tmp_path / "keys" / "issuer.pem"
        key = create_key(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert load_key(path).private_bytes_raw() == key.private_bytes_raw()

    def test_a_key_is_never_overwritten(self, tmp_path: Path) -> None:
        """A second key under the same name is refused and the first one stays."""
        path = tmp_path / "issuer.pem"
        create_key(path)
        before = path.read_bytes()
        with pytest.raises(KeyFileError, match="exists already"):
            create_key(path)
        assert path.read_bytes() == before

    def test_a_start_that_was_killed_leaves_no_half_key(self, tmp_path: Path) -> None:
        """What a killed process left while writing is not the key and does not stand in the way."""
        path = tmp_path / "issuer.pem"
        path.with_name("issuer.pem.new").write_bytes(b"-----BEGIN PRIV")
        key = create_key(path)
        assert load_key(path).private_bytes_raw() == key.private_bytes_raw()
        assert [file.name for file in tmp_path.iterdir()] == ["issuer.pem"]

    @pytest.mark.parametrize("mode", [0o640, 0o620, 0o604, 0o602, 0o660, 0o666])
    def test_a_key_others_can_open_is_refused_with_the_fix(self, tmp_path: Path, mode: int) -> None:
        """Any group or world bit is refused; the message holds the command that mends it."""
        path = tmp_path / "issuer.pem"
        create_key(path)
        path.chmod(mode)
        with pytest.raises(KeyFileError, match="chmod 600"):
            load_key(path)

    def test_missing_planted_and_foreign_files_are_refused(self, tmp_path: Path) -> None:
        """No file, a link, a folder, garbage and another kind of key all give the one error."""
        real = tmp_path / "real.pem"
        create_key(real)
        (tmp_path / "link.pem").symlink_to(real)
        (tmp_path / "folder.pem").mkdir(mode=0o700)
        curve = generate_private_key(SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        for name, content in (("garbage.pem", b"\x00\xff"), ("empty.pem", b""), ("curve.pem", curve)):
            (tmp_path / name).touch(mode=0o600)
            (tmp_path / name).write_bytes(content)
        for name in ("none.pem", "link.pem", "folder.pem", "garbage.pem", "empty.pem", "curve.pem"):
            with pytest.raises(KeyFileError):
                load_key(tmp_path / name)

    def test_a_key_is_not_written_where_it_cannot_be(self, tmp_path: Path) -> None:
        """A folder that is a file is one clear error."""
        (tmp_path / "keys").touch()
        with pytest.raises(KeyFileError, match="cannot be written"):
            create_key(tmp_path / "keys" / "issuer.pem")
