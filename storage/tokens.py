"""Access tokens: short JWTs signed with a key pair of this installation (RFC 7519, RFC 8725, RFC 9068's
``at+jwt``); and the refresh tokens by which a device asks for the next one.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
import os
import threading
import time
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cryptography.fernet import InvalidToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, OKPKey
from joserfc.util import json_b64encode
from sqlalchemy import delete, select, update

from models.access import SignIn, SigningKey
from models.base import new_id, now
from storage import secrets
from storage.database import platform
from storage.settings import settings

LIFETIME = 900
"""Seconds that an access token lives."""
ALGORITHM = "Ed25519"
"""RFC 9864's name; the older ``EdDSA`` is not taken."""
TYPE = "at+jwt"
AUDIENCE = "booga-api"
LONGEST = 2048
_KEYS_KNOWN_SECONDS = 60.0
_ASK_AGAIN_SECONDS = 1.0
SHOWN_FOR = 60
"""Seconds that others may keep the public keys."""
AHEAD = timedelta(seconds=_KEYS_KNOWN_SECONDS + SHOWN_FOR)
"""How long a new key is shown before it signs: until every worker and every reader of the keys has it."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What an access token says, once it was found genuine."""

    user_id: str
    tenant_id: str
    sign_in_id: str


@dataclass(frozen=True, slots=True)
class _Key:
    """A key pair that signs until then (Unix time), and verifies until its last token has expired."""

    pair: OKPKey
    signs_until: float

    def signs(self) -> bool:
        return time.time() < self.signs_until

    def verifies(self) -> bool:
        return time.time() < self.signs_until + LIFETIME


_keys: tuple[float, list[_Key]] = (0.0, [])
"""When they were read (monotonic seconds), and the keys, oldest first: the first that signs is the one."""
_loading = threading.Lock()


def _load(*, older_than: float = _KEYS_KNOWN_SECONDS) -> list[_Key]:
    """The installation's keys, read again when that was longer ago than this; makes the first one."""
    global _keys
    with _loading:
        read_at, known = _keys
        if known and time.monotonic() - read_at < older_than:
            return known
        query = select(SigningKey).order_by(SigningKey.created_at, SigningKey.id)
        with platform(writes=False) as db:
            rows = list(db.scalars(query))
        if all(row.retired_at for row in rows):
            with platform() as db:
                rows = list(db.scalars(query))
                if all(row.retired_at for row in rows):
                    rows.append(db.put(_new_key()))
        loaded = [key for key in map(_opened, rows) if key.verifies()]
        _keys = (time.monotonic(), loaded)
        return loaded


def _opened(row: SigningKey) -> _Key:
    pair = OKPKey.import_key(secrets.unseal(row.private_key), {"kid": row.id, "alg": ALGORITHM, "use": "sig"})
    return _Key(pair, row.retired_at.timestamp() if row.retired_at else math.inf)


def rotate() -> datetime:
    """Make a new key, and return from when on it signs instead of the others.

    Until then it is shown beside them, so that nobody meets a token whose key he cannot know. Tokens of
    the others stay good for their ``LIFETIME``; keys that no token can need any more are removed.
    """
    begins = now() + AHEAD
    with platform() as db:
        db.execute(delete(SigningKey).where(SigningKey.retired_at < now() - timedelta(seconds=LIFETIME)))
        db.execute(update(SigningKey).where(SigningKey.retired_at.is_(None)).values(retired_at=begins))
        db.put(_new_key())
    return begins


def _new_key() -> SigningKey:
    pair = OKPKey.generate_key("Ed25519")
    return SigningKey(
        id=new_id(),
        algorithm=ALGORITHM,
        private_key=secrets.seal(pair.as_pem(private=True)),
        created_at=now(),
    )


def _header(key: OKPKey) -> dict[str, Any]:
    return {"typ": TYPE, "alg": ALGORITHM, "kid": key.kid}


def _key_of(token: str) -> OKPKey | None:
    """The key that a token claims to be signed with.

    Its header has to be, byte for byte, one that we write: so ``none`` and other algorithms, other types,
    ``crit``, ``jwk``, ``jku`` and whatever may be invented are refused without being looked at.
    """
    header = token.partition(".")[0].encode()
    for older_than in (_KEYS_KNOWN_SECONDS, _ASK_AGAIN_SECONDS):  # it may be another worker's new key
        for key in _load(older_than=older_than):
            if json_b64encode(_header(key.pair)) == header and key.verifies():
                return key.pair
    return None


def _signing() -> OKPKey:
    return next(key.pair for key in _load() if key.signs())


def issuer() -> str:
    """Who signs: this installation."""
    return settings().public_url


def make_access_token(user_id: str, tenant_id: str, sign_in_id: str) -> str:
    """A signed access token that lives for ``LIFETIME`` seconds."""
    key = _signing()
    at = int(time.time())
    claims = {
        "iss": issuer(),
        "aud": AUDIENCE,
        "sub": user_id,
        "tid": tenant_id,
        "sid": sign_in_id,
        "iat": at,
        "exp": at + LIFETIME,
        "jti": new_id(),
    }
    return jwt.encode(_header(key), claims, key, algorithms=[ALGORITHM])


def _claims_wanted() -> jwt.JWTClaimsRegistry:
    return jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": issuer()},
        aud={"essential": True, "value": AUDIENCE},
        sub={"essential": True},
        tid={"essential": True},
        sid={"essential": True},
        exp={"essential": True},
        iat={"essential": True},
    )


def read_access_token(token: str) -> Claims | None:
    """The token's claims if it is ours, of the right type, for this audience and in date; else None."""
    if len(token) > LONGEST or token.count(".") != 2 or not token.isascii():
        return None
    key = _key_of(token)
    if key is None:
        return None
    try:
        claims = jwt.decode(token, key, algorithms=[ALGORITHM]).claims
        _claims_wanted().validate(claims)
    except (JoseError, ValueError, TypeError):  # whatever is wrong with it, it is not a token of ours
        return None
    subject, tenant, sign_in = (claims[name] for name in ("sub", "tid", "sid"))
    if not all(isinstance(value, str) for value in (subject, tenant, sign_in)):
        return None
    return Claims(subject, tenant, sign_in)


def jwks() -> dict[str, Any]:
    """The public keys, newest first, by which others can check our tokens (RFC 7517)."""
    shown = _load(older_than=_ASK_AGAIN_SECONDS)
    return dict(KeySet([key.pair for key in reversed(shown)]).as_dict(private=False))


REFRESH_PREFIX = "bkr_"
"""So that a scanner recognises one that leaked."""


def new_seed() -> bytes:
    """What a device's refresh tokens are made from, encrypted for the database."""
    return secrets.seal(os.urandom(32))


def refresh_token(sign_in: SignIn) -> str:
    """The device's newest refresh token: its id, the rotation and an HMAC of both under the device's seed.

    A forged one is thereby told from a spent one, and only the spent one ends the family; and neither the
    database alone nor the installation's secret alone is enough to make one.
    """
    return _refresh_token(sign_in, sign_in.rotation)


def _refresh_token(sign_in: SignIn, rotation: int) -> str:
    message = uuid.UUID(sign_in.id).bytes + rotation.to_bytes(4)
    mac = hmac.digest(secrets.unseal(sign_in.seed), message, hashlib.sha256)
    return REFRESH_PREFIX + base64.urlsafe_b64encode(message + mac).decode().rstrip("=")


def place_of(token: str) -> tuple[str, int] | None:
    """The sign-in and the rotation that a refresh token speaks of, genuine or not; None if it is not one."""
    if not token.startswith(REFRESH_PREFIX) or len(token) != len(REFRESH_PREFIX) + 70:
        return None
    try:
        content = base64.b64decode(token[len(REFRESH_PREFIX) :] + "==", altchars=b"-_", validate=True)
    except ValueError:
        return None
    return str(uuid.UUID(bytes=content[:16])), int.from_bytes(content[16:20])


def is_genuine(token: str, sign_in: SignIn, rotation: int) -> bool:
    """Whether we made this refresh token, be it spent or not."""
    try:
        expected = _refresh_token(sign_in, rotation)
    except InvalidToken:  # sealed with a secret that the installation no longer has
        return False
    return hmac.compare_digest(token.encode(), expected.encode())
