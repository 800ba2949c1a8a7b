"""What is secret at rest: encryption with the installation's keys (newest first), and password hashes.

Fernet keys are derived from ``BOOGA_SECRET_KEY`` by HKDF-SHA256 (RFC 5869); several, separated by commas,
allow rotation.
"""

from __future__ import annotations

import base64
import threading
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from cryptography.fernet import Fernet, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from storage.settings import settings


@cache
def _fernet() -> MultiFernet:
    def derived(secret: str) -> Fernet:
        key = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"booga at-rest encryption").derive(
            secret.encode()
        )
        return Fernet(base64.urlsafe_b64encode(key))

    return MultiFernet([derived(secret) for secret in settings().secret_keys])


def seal(plain: bytes) -> bytes:
    """Encrypt with the newest key."""
    return _fernet().encrypt(plain)


def unseal(sealed: bytes) -> bytes:
    """Decrypt with whichever key fits; raises ``cryptography.fernet.InvalidToken``."""
    return _fernet().decrypt(sealed)


def reseal(sealed: bytes) -> bytes:
    """The same content under the newest key."""
    return _fernet().rotate(sealed)


_hasher = PasswordHasher()  # argon2id, RFC 9106's second recommended option: 64 MiB, t=3, p=4
_hashing = threading.BoundedSemaphore(2)
"""At most two at once: each takes 64 MiB and about 50 ms of every core."""


def hash_password(password: str) -> str:
    """An argon2id hash; blocks its thread for some 50 ms."""
    with _hashing:
        return _hasher.hash(password)


@cache
def _nobodys_hash() -> str:
    return hash_password("nobody has this password")


def password_fits(password: str, hashed: str | None) -> bool:
    """Whether the password is right. Takes as long for an account that is not there (``hashed`` None)."""
    known = hashed or _nobodys_hash()
    with _hashing:
        try:
            _hasher.verify(known, password)
        except (VerificationError, InvalidHashError):
            return False
    return hashed is not None
