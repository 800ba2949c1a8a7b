"""Encryption at rest and password hashes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest
from cryptography.fernet import InvalidToken

from models.errors import Unavailable
from storage import secrets
from storage.settings import settings

Use = Callable[[str], None]
OLD, NEW = "an older secret of thirty-two characters", "a newer secret of thirty-two characters"


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Use]:
    """``use("new,old")``: what the installation's secrets are from now on."""
    monkeypatch.setenv("BOOGA_DATA_DIR", str(tmp_path_factory.mktemp("data")))

    def change(keys: str) -> None:
        monkeypatch.setenv("BOOGA_SECRET_KEY", keys)
        settings.cache_clear()
        secrets._fernet.cache_clear()

    yield change
    settings.cache_clear()
    secrets._fernet.cache_clear()


class TestSealing:
    def test_what_is_sealed_is_not_readable(self, use: Use) -> None:
        use(OLD)
        sealed = secrets.seal(b"a provider's key")
        assert b"provider" not in sealed
        assert secrets.unseal(sealed) == b"a provider's key"

    def test_secrets_rotate(self, use: Use) -> None:
        use(OLD)
        sealed = secrets.seal(b"kept")
        use(f"{NEW},{OLD}")
        assert secrets.unseal(sealed) == b"kept"
        again = secrets.reseal(sealed)
        use(NEW)
        assert secrets.unseal(again) == b"kept"
        with pytest.raises(InvalidToken):
            secrets.unseal(sealed)

    def test_tampering_is_noticed(self, use: Use) -> None:
        use(OLD)
        sealed = bytearray(secrets.seal(b"kept"))
        sealed[20] ^= 1
        with pytest.raises(InvalidToken):
            secrets.unseal(bytes(sealed))


class TestPasswords:
    def test_the_right_one_fits(self) -> None:
        hashed = secrets.hash_password("correct horse")
        assert hashed.startswith("$argon2id$")
        assert secrets.password_fits("correct horse", hashed)
        assert not secrets.password_fits("correct horse ", hashed)

    def test_the_same_password_is_another_hash(self) -> None:
        assert secrets.hash_password("correct horse") != secrets.hash_password("correct horse")

    @pytest.mark.parametrize("hashed", [None, "", "not a hash", "$argon2id$v=19$m=8,t=1,p=1$c2FsdA$"])
    def test_nothing_fits_what_is_no_hash(self, hashed: str | None) -> None:
        assert not secrets.password_fits("nobody has this password", hashed)

    def test_an_unknown_account_costs_a_hash_of_the_same_parameters(self) -> None:
        mine, nobodys = secrets.hash_password("x").split("$"), secrets._nobodys_hash().split("$")
        assert mine[1:4] == nobodys[1:4]

    def test_only_todays_parameters_are_up_to_date(self) -> None:
        assert not secrets.is_outdated(secrets.hash_password("x"))
        assert secrets.is_outdated(secrets.hash_password("x").replace("t=1", "t=2"))


class TestSlots:
    def test_whoever_finds_no_place_is_told_at_once(self) -> None:
        """While every slot and place is taken, the event loop runs on and the next is refused."""
        go_on = threading.Event()

        async def crowd() -> list[bool]:
            taken = secrets.SLOTS + secrets.MOST_WAITING
            tasks = [asyncio.create_task(secrets.in_slot(go_on.wait)) for _ in range(taken)]
            await asyncio.sleep(0)  # lets every task take its place
            with pytest.raises(Unavailable):
                await secrets.in_slot(go_on.wait)
            go_on.set()
            return await asyncio.gather(*tasks)

        assert all(asyncio.run(crowd()))

    def test_places_are_given_back(self) -> None:
        async def one_after_another() -> None:
            for _ in range(secrets.SLOTS + secrets.MOST_WAITING + 1):
                assert await secrets.in_slot(len, "abc") == 3
            with pytest.raises(ZeroDivisionError):
                await secrets.in_slot(divmod, 1, 0)
            assert secrets._waiting == 0

        asyncio.run(one_after_another())
