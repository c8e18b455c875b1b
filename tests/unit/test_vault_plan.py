"""What a vault is to hold, as plain rules: its policies, the plan, how it differs, and what is only looked at."""

from dataclasses import replace
from operator import attrgetter
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import vault_looks
from gateway.core import vault_policy as policy
from gateway.core.leasing import Provider, Template
from gateway.core.vault_plan import Effect, Kind, Needs, Piece, admin_policy, compared, looked_at, pieces
from gateway.core.vault_policy import Duties, Rule, Transit

DATABASE = Template("erp", "database", "erp-read", "erp-read", 120)
PKI = Template("web", "pki", "web", "web", 60, provider=Provider.PKI, common_name="gw.example")
KV = Template("key", "secret", "erp/api", "key", 60, provider=Provider.KV, member="key", header="Authorization")
ACCOUNT = Template("hub", "accounts", "hub", "hub", 300, provider=Provider.OAUTH_USER, header="Authorization")
ALL = (DATABASE, PKI, KV, ACCOUNT)
DUTIES = Duties(
    Transit("transit", "ostiary"),
    rewraps=True,
    secret_id="approle/role/ostiary",
    roots=("database/erp",),
    shelf="keys/a/b",
)
NEEDS = Needs(ALL, DUTIES, role_id="ostiary-gateway", logins_per_s=5)
SWEPT = ("COMMENT ON ROLE x IS 'mine'", "DO $$ BEGIN PERFORM shobj_description(1, 'pg_authid'); END $$")
FENCE = "SELECT pg_advisory_xact_lock_shared(1), EXISTS (SELECT FROM keeper.ended)"
RULES = st.builds(
    Rule,
    st.from_regex(r"[a-z]{1,8}/[a-z+*]{1,8}", fullmatch=True),
    st.lists(st.sampled_from(["create", "list", "read", "sudo", "update"]), min_size=1, unique=True).map(tuple),
    st.none()
    | st.lists(
        st.tuples(st.from_regex(r"[a-z_]{1,6}", fullmatch=True), st.lists(st.text("ab/*{} ", max_size=4)).map(tuple)),
        max_size=3,
        unique_by=lambda pair: pair[0],
    ).map(tuple),
    st.none() | st.just(("1s", "120s")),
)


@given(st.lists(RULES, max_size=5))
def test_policies_are_read_as_they_are_written(rules: list[Rule]) -> None:
    """Each rule comes back as it was, and a policy is not wider than itself."""
    text = policy.text(rules)
    assert policy.parsed(text) == tuple(rules)
    assert policy.wider(text, text) == ()


@pytest.mark.parametrize(
    "text",
    [
        'path "a" { capabilities = ["read"] }\n',
        '# a word\npath "a" {\n  capabilities = ["read"]\n}\n',
        'path "a" {\n  capabilities = ["read"]\n}\nand more',
        'path "a" {\n  capabilities = [read]\n}\n',
        'path "a" {\n  capabilities = ["read"]\n  denied_parameters = { "x" = [] }\n}\n',
        'path "a" {\n  min_wrapping_ttl = "1s"\n}\n',
    ],
)
def test_a_policy_in_another_form_tells_nothing(text: str) -> None:
    """What cannot be read for certain is not compared."""
    assert policy.parsed(text) is None
    assert policy.wider(text, text) is None


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        (Rule("a", ("read", "update")), Rule("a", ("read",))),
        (Rule("a", ("update",)), Rule("a", ("update",), (("x", ("1",)),))),
        (Rule("a", ("update",), (("x", ()), ("y", ()))), Rule("a", ("update",), (("x", ("1",)),))),
        (Rule("a", ("update",), (("x", ("1", "2")),)), Rule("a", ("update",), (("x", ("1",)),))),
        (Rule("a", ("update",)), Rule("a", ("update",), None, ("1s", "120s"))),
        (Rule("a", ("update",), (("x", ()),)), Rule("a", ("update",), ())),
    ],
)
def test_what_allows_more(wide: Rule, narrow: Rule) -> None:
    """The wider rule covers the narrower one, and not the other way round."""
    assert wide.covers(narrow)
    assert not narrow.covers(wide)
    assert policy.wider(policy.text([narrow]), policy.text([wide])) == (wide,)
    assert policy.wider(policy.text([wide]), policy.text([narrow])) == ()
    assert not Rule("b", wide.capabilities).covers(narrow)


def test_a_rule_without_members_denies_them_all() -> None:
    """An empty list of those allowed would allow everything."""
    assert 'denied_parameters = { "*" = [] }' in Rule("a", ("update",), ()).text
    assert "allowed_parameters" not in Rule("a", ("update",), ()).text


def test_what_each_token_may_do() -> None:
    """A minting token its one thing, the gateway none of those, the break-glass token all of a template at once."""
    paths = {template.name: [rule.path for rule in policy.minting(template)] for template in ALL}
    assert paths == {
        "erp": ["database/creds/erp-read", "database/creds/erp-read-reap"],
        "web": ["pki/issue/web"],
        "key": ["secret/data/erp/api"],
        "hub": ["accounts/data/ostiary/connections/hub/+", "accounts/metadata/ostiary/connections/hub/+"],
    }
    gateway = {rule.path: rule for rule in policy.gateway(ALL, DUTIES)}
    assert not gateway.keys() & set(policy.forbidden(ALL, "ostiary"))
    # Who may do one of these is more than the gateway a moment later.
    ways = {f"auth/approle/role/ostiary{one}/secret-id" for one in ("-break-glass", "-admin")}
    ways |= {"auth/approle/role/ostiary", "sys/policies/acl/erp-read", "sys/policies/acl/web", "identity/entity"}
    assert ways <= set(policy.forbidden(ALL, "ostiary"))
    ids = ("lease_id", ("database/creds/erp-read/*", "pki/issue/web/*"))
    assert gateway["sys/leases/revoke"].parameters == (ids, ("sync", ()))
    assert {"transit/keys/ostiary/rotate", "database/rotate-root/erp"} <= gateway.keys()
    assert gateway["auth/approle/role/ostiary/secret-id"].wrapping == ("1s", "120s")
    assert policy.introducer("approle/role/ostiary") == (gateway["auth/approle/role/ostiary/secret-id"],)
    glass = [rule.path for rule in policy.break_glass(ALL)]
    assert glass[:2] == ["sys/leases/revoke-prefix/database/creds/erp-read", "sys/leases/revoke-prefix/pki/issue/web"]


def test_an_engine_nobody_knows_gets_no_policy() -> None:
    """Neither a token's nor a lease's path is guessed."""
    odd = replace(DATABASE, provider=cast("Provider", "other"))
    for derive in (policy.minting, attrgetter("lease_prefix")):
        with pytest.raises(AssertionError):
            derive(odd)


def test_a_gateway_without_duties_asks_for_little() -> None:
    """Nothing minted, nothing wrapped: it may look at itself and end its token."""
    assert [rule.path for rule in policy.gateway((), Duties())] == ["auth/token/revoke-self", "sys/capabilities-self"]
    without = policy.gateway((), replace(DUTIES, rewraps=False, secret_id=None, roots=(), shelf=None))
    assert [rule.path for rule in without][2:] == ["transit/encrypt/ostiary", "transit/decrypt/ostiary"]
    assert not any(rule.path.startswith("sys/leases") for rule in policy.gateway((KV,), Duties()))


def test_the_plan() -> None:
    """Mounts, policies, token roles, both AppRoles, quotas: each path once, and the admin may write exactly these."""
    plan = {piece.path: piece for piece in pieces(NEEDS)}
    assert plan["sys/mounts/accounts"].body == {"type": "kv", "options": {"version": "2"}}
    assert plan["transit/keys/ostiary"].is_fixed
    assert plan["auth/token/roles/web"].body["token_period"] == "30s"
    assert plan["auth/approle/role/ostiary"].body["token_policies"] == "ostiary-gateway"
    assert plan["auth/approle/role/ostiary-break-glass"].body["token_max_ttl"] == "300s"
    assert plan["auth/approle/role/ostiary/role-id"].body == {"role_id": "ostiary-gateway"}
    assert plan["sys/quotas/rate-limit/ostiary-logins"].body["rate"] == "5"
    allowed = {rule.path: rule for rule in admin_policy(NEEDS)}
    assert all(dict(allowed[path].parameters or ()) == {n: (v,) for n, v in plan[path].body.items()} for path in plan)
    assert "sudo" in allowed["sys/auth/approle"].capabilities
    assert allowed["database/roles/erp-read"].capabilities == ("read",)
    assert NEEDS.admin == "ostiary-admin"


def test_a_plan_without_templates_and_without_approle() -> None:
    """No break-glass role where there is nothing to end, no AppRole where somebody else gives the token."""
    plain = [piece.path for piece in pieces(Needs(()))]
    assert "auth/approle/role/ostiary" in plain
    assert not any("break-glass" in path or "quotas" in path for path in plain)
    assert not any(
        path.startswith("auth/approle") for path in [piece.path for piece in pieces(Needs(ALL, approle=None))]
    )
    assert [looked_at(template) for template in ALL] == [
        ("database/roles/erp-read", "database/roles/erp-read-reap"),
        ("pki/roles/web",),
        ("secret/metadata/erp/api",),
        (),
    ]


ROLE = Piece(Kind.SETTINGS, "auth/token/roles/erp", {"orphan": True, "allowed_policies": "erp", "token_period": "30s"})


@pytest.mark.parametrize(
    ("found", "effect"),
    [
        ({"orphan": True, "allowed_policies": ["erp"], "token_period": 30, "more": 1}, None),
        (None, Effect.CREATE),
        ({"orphan": False, "allowed_policies": ["erp"], "token_period": 30}, Effect.WIDEN),
        ({"orphan": True, "allowed_policies": ["erp", "root"], "token_period": 30}, Effect.NARROW),
        ({"orphan": True, "allowed_policies": ["other"], "token_period": 30}, Effect.WIDEN),
        ({"orphan": True, "allowed_policies": ["erp"], "token_period": 60}, Effect.NARROW),
        ({"orphan": True, "allowed_policies": ["erp"], "token_period": 0}, Effect.NARROW),
        ({"orphan": True, "allowed_policies": ["erp"], "token_period": 10}, Effect.WIDEN),
        ({"orphan": True, "allowed_policies": ["erp"], "token_period": True}, Effect.WIDEN),
        ({"orphan": True, "allowed_policies": "erp/", "token_period": "30s"}, None),
        ({"orphan": True, "allowed_policies": None, "token_period": 30}, Effect.WIDEN),
        ({"orphan": True, "allowed_policies": {}, "token_period": 30}, Effect.WIDEN),
    ],
)
def test_how_settings_differ(found: dict[str, Any] | None, effect: Effect | None) -> None:
    """Less is narrower; whatever might be more is wider, and says what."""
    change = compared(ROLE, found)
    assert (change.effect if change else None) == effect
    if change is not None and change.effect is Effect.WIDEN:
        assert change.why.startswith("may allow more: ")
    if change is not None:
        assert change.diff


def test_minting_tokens_are_nobody_elses() -> None:
    """A token role that lets its tokens be an entity's, with whatever that one may do, is taken back."""
    (role,) = (piece for piece in pieces(NEEDS) if piece.path == "auth/token/roles/erp-read")
    change = compared(role, {**role.body, "allowed_entity_aliases": ["an-administrator"]})
    assert change is not None
    assert (change.effect, "an-administrator" in "".join(change.diff)) == (Effect.NARROW, True)


def test_how_policies_differ() -> None:
    """By what they allow; the lines that differ are shown, and one in another form may allow less."""
    wide, narrow = Rule("a", ("read", "update")), Rule("a", ("read",))
    piece = Piece(Kind.POLICY, "sys/policies/acl/x", {"policy": policy.text([wide])})
    same = compared(piece, {"policy": policy.text([wide])})
    wider = compared(piece, {"policy": policy.text([narrow])})
    unknown = compared(piece, {"policy": "path a {}"})
    narrower = compared(replace(piece, body={"policy": policy.text([narrow])}), {"policy": policy.text([wide])})
    fresh = compared(piece, None)
    assert same is None
    assert wider is not None
    assert (wider.effect, wider.why) == (Effect.WIDEN, "allows more at a")
    assert '-  capabilities = ["read"]' in wider.diff
    assert unknown is not None
    assert (unknown.effect, "another form" in unknown.why) == (Effect.WIDEN, True)
    assert narrower is not None
    assert narrower.effect is Effect.NARROW
    assert fresh is not None
    assert fresh.diff[0] == '+ path "a" {'


def test_what_is_there_is_not_made_into_something_else() -> None:
    """A mount of another type is refused, not written."""
    change = compared(Piece(Kind.MOUNT, "sys/mounts/x", {"type": "kv"}), {"type": "transit"})
    assert change is not None
    assert change.effect is Effect.REFUSE


GOOD: dict[str, dict[str, Any]] = {
    "erp": {
        "default_ttl": 60,
        "revocation_statements": ["SELECT pg_terminate_backend(pid)", "ALTER ROLE x NOLOGIN", "DROP ROLE x"],
        "creation_statements": [
            FENCE,
            "CREATE ROLE x LOGIN NOSUPERUSER NOCREATEROLE;",
            'GRANT "no_superuser" TO x;',
            *SWEPT,
        ],
    },
    "web": {"generate_lease": True, "max_ttl": 60},
    "key": {"current_version": 2, "versions": {"2": {"deletion_time": "", "destroyed": False}}},
}


@pytest.mark.parametrize("template", [DATABASE, PKI, KV])
def test_what_is_the_operators_own_is_looked_at(template: Template) -> None:
    """As it should be there is nothing to say; where it is not there, what to do is said."""
    assert vault_looks.problem(template, GOOD[template.name]) is None
    missing = vault_looks.problem(template, None)
    assert missing is not None
    assert ("has no secret" if template is KV else "has no role") in missing


@pytest.mark.parametrize(
    ("template", "worse", "said"),
    [
        (DATABASE, {"default_ttl": 121}, "default_ttl"),
        (DATABASE, {"default_ttl": None}, "default_ttl"),
        (DATABASE, {"revocation_statements": ["DROP ROLE x"]}, "revocation_statements"),
        (
            DATABASE,
            {"revocation_statements": ["ALTER ROLE x NOLOGIN", "SELECT pg_terminate_backend(pid)", "DROP ROLE x"]},
            "sessions before they say NOLOGIN",
        ),
        (DATABASE, {"creation_statements": [FENCE, "CREATE ROLE x LOGIN SUPERUSER", *SWEPT]}, "hand out SUPERUSER"),
        (DATABASE, {"creation_statements": [FENCE, "create role x login superuser;", *SWEPT]}, "hand out SUPERUSER"),
        (DATABASE, {"creation_statements": [FENCE, "CREATE ROLE x BYPASSRLS/**/LOGIN", *SWEPT]}, "hand out BYPASSRLS"),
        (
            DATABASE,
            {"creation_statements": [FENCE, "CREATE ROLE x NOSUPERUSER; ALTER ROLE x CREATEROLE;", *SWEPT]},
            "CREATEROLE",
        ),
        (DATABASE, {"creation_statements": ["CREATE ROLE x LOGIN", *SWEPT]}, "must begin with fence.sql"),
        (DATABASE, {"creation_statements": [FENCE.replace("ended", "x"), *SWEPT]}, "must begin with fence.sql"),
        (DATABASE, {"creation_statements": ["CREATE ROLE x LOGIN", SWEPT[0]]}, "drop marked ones"),
        (DATABASE, {"creation_statements": ["CREATE ROLE x LOGIN", SWEPT[1]]}, "must mark the role"),
        (PKI, {"allow_any_name": True}, "allow_any_name"),
        (PKI, {"generate_lease": False}, "generate_lease"),
        (PKI, {"max_ttl": 61}, "max_ttl"),
        (KV, {"versions": {"2": {"deletion_time": "now"}}}, "was deleted"),
    ],
)
def test_what_is_wrong_is_named(template: Template, worse: dict[str, Any], said: str) -> None:
    """Each by the setting to change."""
    found = vault_looks.problem(template, GOOD[template.name] | worse)
    assert found is not None
    assert said in found


REAPS = "SELECT pg_try_advisory_xact_lock(1); INSERT INTO keeper.ended; DROP ROLE lost"


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"creation_statements": [REAPS]}, None),
        (None, "database/roles/erp-read-reap is not there"),
        ({"creation_statements": []}, "reap.sql"),
        ({}, "reap.sql"),
        ({"creation_statements": [REAPS.replace("pg_try", "pg")]}, "reap.sql"),
        ({"creation_statements": [REAPS.replace("keeper.ended", "x")]}, "reap.sql"),
        ({"creation_statements": [REAPS.replace("DROP", "ALTER")]}, "reap.sql"),
        ({"creation_statements": [REAPS, "create role x"]}, "make nobody"),
    ],
)
def test_the_role_that_drops_what_was_lost(found: dict[str, Any] | None, said: str | None) -> None:
    """It fences, drops, and makes nobody."""
    problem = vault_looks.reaper_problem(DATABASE, found)
    assert problem is None if said is None else said in str(problem)


def test_a_vault_without_audit_device() -> None:
    """It is said, with where to look."""
    assert vault_looks.audit_problem({"file/": {}}) is None
    assert "openbao.hcl" in str(vault_looks.audit_problem({}))
