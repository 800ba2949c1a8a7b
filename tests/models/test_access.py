"""Roles, scopes and API keys."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from models.access import (
    KEY_PATTERN,
    SCOPES,
    SCOPES_OF_ROLE,
    ApiKey,
    Caller,
    SignIn,
    digest,
    effective_scopes,
    is_well_formed,
    new_key,
)
from models.base import now
from models.errors import RuleBroken
from models.tenancy import Role

KNOWN = "bk_live_0123456789ABCDEFGHIJKLMNOPQRSTUV"


def caller(role: str, *scopes: str, key_id: str | None = None) -> Caller:
    return Caller("t", "u", role, frozenset(scopes), frozenset(), key_id=key_id)


class TestScopes:
    def test_each_role_has_what_the_weaker_has(self) -> None:
        for weaker, stronger in zip(list(Role), list(Role)[1:], strict=False):
            assert SCOPES_OF_ROLE[weaker] <= SCOPES_OF_ROLE[stronger]

    def test_a_viewer_writes_only_its_own_profile(self) -> None:
        written = {scope for scope in SCOPES_OF_ROLE[Role.VIEWER] if scope.endswith(":write")}
        assert written == {"profile:write"}

    def test_a_member_chats_and_administers_nothing(self) -> None:
        held = SCOPES_OF_ROLE[Role.MEMBER]
        assert "chat:write" in held
        assert not any(s.startswith(("tenants:", "webhooks:", "audit:")) for s in held)

    def test_an_operator_reads_nothing_that_tenants_keep(self) -> None:
        assert {scope.partition(":")[0] for scope in SCOPES_OF_ROLE["operator"]} == {
            "tenants",
            "api_keys",
            "profile",
        }

    def test_all_scopes_are_some_roles(self) -> None:
        assert frozenset().union(*SCOPES_OF_ROLE.values()) == set(SCOPES)

    def test_a_key_has_what_both_its_maker_and_itself_have(self) -> None:
        granted = ["chat:read", "chat:write", "tenants:write"]
        assert effective_scopes(Role.OWNER, granted) == set(granted)
        assert effective_scopes(Role.VIEWER, granted) == {"chat:read"}
        assert effective_scopes(Role.VIEWER, None) == SCOPES_OF_ROLE[Role.VIEWER]
        assert effective_scopes("retired role", granted) == frozenset()


class TestCaller:
    @pytest.mark.parametrize(
        ("role", "is_admin"), [("viewer", False), ("member", False), ("admin", True), ("owner", True)]
    )
    def test_administrators(self, role: str, is_admin: bool) -> None:
        assert caller(role).is_admin is is_admin

    def test_a_key_is_limited_as_itself(self) -> None:
        assert caller("owner").identity == "user:u"
        assert caller("owner", key_id="k").identity == "key:k"


class TestKeys:
    @pytest.mark.parametrize("kind", ["live", "oper"])
    def test_a_new_one_is_well_formed(self, kind: str) -> None:
        keys = {new_key(kind) for _ in range(200)}
        assert len(keys) == 200
        assert all(is_well_formed(key) and re.fullmatch(KEY_PATTERN, key) for key in keys)
        assert all(key.startswith(f"bk_{kind}_") for key in keys)

    def test_one_wrong_character_is_noticed(self) -> None:
        key = new_key()
        for position in range(3, len(key)):
            wrong = "0" if key[position] != "0" else "1"
            assert not is_well_formed(key[:position] + wrong + key[position + 1 :])

    @pytest.mark.parametrize(
        "key", ["", "bk_", "bk_live_", KNOWN, KNOWN + "000000", "x" * 46, "bk_live_" + "é" * 38]
    )
    def test_others_are_not(self, key: str) -> None:
        assert not is_well_formed(key)

    def test_issuing_keeps_no_secret(self) -> None:
        key, secret = ApiKey.issue(
            user_id="u", role=Role.MEMBER, name="n", scopes=["chat:write", "chat:read"]
        )
        assert key.key_hash == digest(secret)
        assert secret.startswith(key.prefix)
        assert len(key.prefix) <= 12
        assert secret not in repr(vars(key))
        assert key.scopes == ["chat:read", "chat:write"]

    def test_nobody_issues_more_than_it_has(self) -> None:
        with pytest.raises(RuleBroken, match="tenants:write") as told:
            ApiKey.issue(user_id="u", role=Role.MEMBER, name="n", scopes=["chat:read", "tenants:write"])
        assert told.value.pointer == "/scopes"

    def test_revoked_or_expired_is_not_usable(self) -> None:
        key, _ = ApiKey.issue(user_id="u", role=Role.OWNER, name="n", scopes=[])
        assert key.is_usable()
        key.expires_at = now() + timedelta(hours=1)
        assert key.is_usable()
        key.expires_at = now() - timedelta(seconds=1)
        assert not key.is_usable()
        key.expires_at, key.revoked_at = None, now()
        assert not key.is_usable()


def test_an_ended_or_old_sign_in_is_closed() -> None:
    sign_in = SignIn(expires_at=now() + timedelta(days=1))
    assert sign_in.is_open()
    sign_in.ended_at = now()
    assert not sign_in.is_open()
    assert not SignIn(expires_at=now() - timedelta(seconds=1)).is_open()
