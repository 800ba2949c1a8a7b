"""Settings: defaults that need nothing, and one clear line for what is wrong."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest

from storage import settings
from storage.settings import SettingsError

LONG = "x" * 32


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing set but where to keep data."""
    example = (Path(__file__).parents[2] / ".env.example").read_text()
    for name in re.findall(r"^#((?:BOOGA|OPENAI)_[A-Z_]+)=", example, re.M):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BOOGA_DATA_DIR", str(tmp_path / "data"))


def test_nothing_is_needed(tmp_path: Path) -> None:
    read = settings.read()
    assert read.database_url == f"sqlite:///{tmp_path / 'data' / 'booga.db'}"
    assert (read.workers, read.chroma_url, read.redis_url, read.has_openai) == (1, None, None, False)
    assert (read.embeddings, read.rate_limit_per_minute, read.is_sqlite) == ("offline", 3000, True)
    assert read.cdn_url == read.public_url == "http://127.0.0.1:8000"


def test_the_data_folder_is_its_owners_alone(tmp_path: Path) -> None:
    settings.read()
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


class TestSecret:
    def test_is_made_once_and_for_its_owner_alone(self, tmp_path: Path) -> None:
        first, second = settings.read().secret_keys, settings.read().secret_keys
        assert first == second
        assert len(first[0]) >= 32
        assert stat.S_IMODE((tmp_path / "data" / "secret.key").stat().st_mode) == 0o600

    def test_is_never_shown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
        read = settings.read()
        assert read.secret_keys[0] not in repr(read)
        assert "sk-very-secret" not in repr(read)

    def test_several_allow_a_change(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BOOGA_SECRET_KEY", f"new{LONG}, old{LONG}")
        assert settings.read().secret_keys == (f"new{LONG}", f"old{LONG}")

    @pytest.mark.parametrize("secret", ["short", f"{LONG},short", f"{LONG},"])
    def test_has_to_be_long(self, monkeypatch: pytest.MonkeyPatch, secret: str) -> None:
        monkeypatch.setenv("BOOGA_SECRET_KEY", secret)
        with pytest.raises(SettingsError, match="BOOGA_SECRET_KEY is too short"):
            settings.read()

    def test_a_database_of_ones_own_needs_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BOOGA_DATABASE_URL", "postgresql://127.0.0.1/booga")
        with pytest.raises(SettingsError, match="BOOGA_SECRET_KEY is missing"):
            settings.read()
        monkeypatch.setenv("BOOGA_SECRET_KEY", LONG)
        assert settings.read().database_url == "postgresql+psycopg://127.0.0.1/booga"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BOOGA_WORKERS", "two"),
        ("BOOGA_WORKERS", "0"),
        ("BOOGA_WORKERS", "²"),
        ("BOOGA_RATE_LIMIT_PER_MINUTE", "-1"),
        ("BOOGA_DATABASE_URL", "mysql://127.0.0.1/booga"),
        ("BOOGA_DATABASE_URL", "postgresql://"),
        ("BOOGA_REDIS_URL", "127.0.0.1:6379"),
        ("BOOGA_CHROMA_URL", "http://127.0.0.1:port"),
        ("BOOGA_PUBLIC_URL", "javascript:alert(1)"),
        ("OPENAI_BASE_URL", "ftp://127.0.0.1"),
        ("BOOGA_EMBEDDINGS", "magic"),
        ("BOOGA_EMBEDDINGS", "openai"),
        ("BOOGA_JSON_LOGS", "perhaps"),
        ("BOOGA_TRUSTED_PROXIES", "*"),
        ("BOOGA_TRUSTED_PROXIES", "10.0.0.5, proxy.example.com"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name) as told:
        settings.read()
    assert "\n" not in str(told.value)


def test_a_url_that_is_wrong_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOGA_REDIS_URL", "http://user:password@127.0.0.1")
    with pytest.raises(SettingsError) as told:
        settings.read()
    assert "password" not in str(told.value)


def test_two_workers_need_a_chroma_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOGA_WORKERS", "2")
    with pytest.raises(SettingsError, match="BOOGA_CHROMA_URL"):
        settings.read()
    monkeypatch.setenv("BOOGA_CHROMA_URL", "http://127.0.0.1:8001")
    assert settings.read().workers == 2


def test_blank_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "BOOGA_DATABASE_URL",
        "BOOGA_SECRET_KEY",
        "BOOGA_WORKERS",
        "BOOGA_REDIS_URL",
        "OPENAI_API_KEY",
    ):
        monkeypatch.setenv(name, " ")
    read = settings.read()
    assert (read.workers, read.redis_url, read.openai_api_key, read.is_sqlite) == (1, None, None, True)


def test_addresses_lose_their_last_slash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOGA_PUBLIC_URL", "https://chat.example/")
    assert settings.read().public_url == settings.read().cdn_url == "https://chat.example"


def test_a_folder_that_cannot_be_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BOOGA_DATA_DIR", str(tmp_path / "file" / "data"))
    with pytest.raises(SettingsError, match="BOOGA_DATA_DIR"):
        settings.read()
