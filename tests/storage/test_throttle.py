"""Counting failed sign-ins, in memory and in Redis."""

from __future__ import annotations

import secrets

import pytest

from models.errors import TooManyRequests, Unavailable
from storage import throttle
from storage.settings import settings
from tests.backends import free_port

pytestmark = pytest.mark.usefixtures("migrated", "counting")


@pytest.fixture
def counting(migrated: None) -> None:
    """Counters of this test's own settings."""
    throttle._limiter.cache_clear()


@pytest.fixture
def account() -> str:
    """An account that no other test knows: Redis is shared by them all."""
    return f"{secrets.token_hex(6)}@example.com"


def address() -> str:
    return f"10.{secrets.randbelow(250)}.{secrets.randbelow(250)}.{secrets.randbelow(250)}"


def test_an_account_has_ten_tries(account: str) -> None:
    for _ in range(10):
        throttle.check(account, address())
        throttle.count_failure(account, address())
    with pytest.raises(TooManyRequests) as refused:
        throttle.check(account, address())
    assert 1 <= refused.value.retry_after <= 900
    with pytest.raises(TooManyRequests):
        throttle.count_failure(account, address())


def test_an_address_has_a_hundred_tries() -> None:
    here = address()
    for _ in range(100):
        throttle.count_failure(f"{secrets.token_hex(6)}@example.com", here)
    with pytest.raises(TooManyRequests):
        throttle.check("somebody@example.com", here)
    throttle.check("somebody@example.com", address())


def test_no_address_no_count(account: str) -> None:
    throttle.count_failure(account, "")
    throttle.check(account, "")


@pytest.mark.parametrize(
    ("written", "counted"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::9", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::9", "2001:db8:1:3::/64"),
        ("unix", "unix"),
    ],
)
def test_what_counts_as_one_address(written: str, counted: str) -> None:
    assert throttle.network_of(written) == counted


def test_nothing_is_let_through_uncounted(monkeypatch: pytest.MonkeyPatch, account: str) -> None:
    monkeypatch.setenv("BOOGA_REDIS_URL", f"redis://127.0.0.1:{free_port()}")
    settings.cache_clear()
    throttle._limiter.cache_clear()
    assert not throttle.is_reachable()
    with pytest.raises(Unavailable):
        throttle.check(account, address())
    with pytest.raises(Unavailable):
        throttle.count_failure(account, address())
    throttle._limiter.cache_clear()
