"""What is secret at rest: encryption with the installation's keys (newest first), and password hashes.

Fernet keys are derived from ``BOOGA_SECRET_KEY`` by HKDF-SHA256 (RFC 5869); several, separated by commas,
allow rotation. Passwords are argon2id (RFC 9106) with the parameters that OWASP's Password Storage Cheat
Sheet lists first; a hash made with others is renewed at the next sign-in.
"""

from __future__ import annotations

import asyncio
import base64
import contextvars
import hashlib
import hmac
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import ParamSpec, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from cryptography.fernet import Fernet, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from models.errors import Unavailable
from storage.settings import settings

P = ParamSpec("P")
R = TypeVar("R")


def keyring(secrets: Sequence[str]) -> MultiFernet:
    """What encrypts with the first of these secrets, and decrypts with any."""

    def derived(secret: str) -> Fernet:
        key = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"booga at-rest encryption").derive(
            secret.encode()
        )
        return Fernet(base64.urlsafe_b64encode(key))

    return MultiFernet([derived(secret) for secret in secrets])


@cache
def _fernet() -> MultiFernet:
    return keyring(settings().secret_keys)


def seal(plain: bytes) -> bytes:
    """Encrypt with the newest key."""
    return _fernet().encrypt(plain)


def unseal(sealed: bytes) -> bytes:
    """Decrypt with whichever key fits; raises ``cryptography.fernet.InvalidToken``."""
    return _fernet().decrypt(sealed)


def reseal(sealed: bytes) -> bytes:
    """The same content under the newest key."""
    return _fernet().rotate(sealed)


def mac(purpose: str, message: str) -> bytes:
    """32 bytes that nobody makes without the installation's newest secret; each purpose has its own key."""
    secret = settings().secret_keys[0].encode()
    key = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"booga mac " + purpose.encode()).derive(secret)
    return hmac.digest(key, message.encode(), hashlib.sha256)


SLOTS = 2
"""Hashes at once: each takes 46 MiB and some 50 ms of a core."""
MOST_WAITING = 100
"""Passwords that wait for a slot, some three seconds' worth; whoever comes then is told to come again."""

_hasher = PasswordHasher(time_cost=1, memory_cost=47_104, parallelism=1)
_hashing = threading.BoundedSemaphore(SLOTS)


def hash_password(password: str) -> str:
    """An argon2id hash; blocks its thread for some 50 ms, and longer while others hash."""
    with _hashing:
        return _hasher.hash(password)


@cache
def _nobodys_hash() -> str:
    return hash_password("nobody has this password")


def password_fits(password: str, hashed: str | None) -> bool:
    """Whether the password is right. Takes as long for an account that is not there (``hashed`` None)."""
    nobodys = _nobodys_hash()
    with _hashing:
        try:
            _hasher.verify(hashed or nobodys, password)
        except (VerificationError, InvalidHashError):
            return False
    return bool(hashed)


def is_outdated(hashed: str) -> bool:
    """Whether a hash was made with other parameters than today's."""
    return _hasher.check_needs_rehash(hashed)


def _step_back() -> None:
    """Let the event loop go first: on Linux a thread has a priority of its own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


_slots = ThreadPoolExecutor(SLOTS, thread_name_prefix="hashing", initializer=_step_back)
_waiting = 0


async def in_slot(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run ``work``, which hashes, apart from the handlers' threads; ``Unavailable`` at once if too many wait.

    However many sign in together, other requests find the event loop and all of the handlers' threads free.
    """
    global _waiting
    if _waiting >= SLOTS + MOST_WAITING:
        raise Unavailable("Too many sign in at this moment.")
    _waiting += 1
    try:
        call = partial(contextvars.copy_context().run, work, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(_slots, call)
    finally:
        _waiting -= 1
