"""Access tokens: short JWTs signed with a key pair of this installation (RFC 7519, RFC 8725, RFC 9068's
``at+jwt``).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, OKPKey
from sqlalchemy import select

from models.access import SigningKey
from models.base import new_id, now
from storage import secrets
from storage.database import platform
from storage.settings import settings

LIFETIME = 900
"""Seconds that an access token lives."""
ALGORITHM = "Ed25519"
TYPE = "at+jwt"
AUDIENCE = "booga-api"
_KEYS_KNOWN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Claims:
    """What an access token says, once it was found genuine."""

    user_id: str
    tenant_id: str
    sign_in_id: str


_keys: tuple[float, list[OKPKey]] = (0.0, [])


def _load(*, fresh: bool = False) -> list[OKPKey]:
    """The installation's keys, newest first; makes the first one."""
    global _keys
    if not fresh and _keys[1] and _keys[0] > time.monotonic():
        return _keys[1]
    query = select(SigningKey).where(SigningKey.retired_at.is_(None)).order_by(SigningKey.created_at.desc())
    with platform(writes=False) as db:
        rows = list(db.scalars(query))
    if not rows:
        with platform() as db:
            rows = list(db.scalars(query))
            if not rows:
                key = OKPKey.generate_key("Ed25519")
                sealed = secrets.seal(key.as_pem(private=True))
                rows = [
                    db.put(SigningKey(id=new_id(), algorithm=ALGORITHM, private_key=sealed, created_at=now()))
                ]
    loaded = [
        OKPKey.import_key(secrets.unseal(row.private_key), {"kid": row.id, "alg": ALGORITHM, "use": "sig"})
        for row in rows
    ]
    _keys = (time.monotonic() + _KEYS_KNOWN_SECONDS, loaded)
    return loaded


def issuer() -> str:
    """Who signs: this installation."""
    return settings().public_url


def make_access_token(user_id: str, tenant_id: str, sign_in_id: str) -> str:
    """A signed access token that lives for ``LIFETIME`` seconds."""
    key = _load()[0]
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
    return jwt.encode({"alg": ALGORITHM, "typ": TYPE, "kid": key.kid}, claims, key, algorithms=[ALGORITHM])


_REQUIREMENTS = jwt.JWTClaimsRegistry(
    aud={"essential": True, "value": AUDIENCE},
    sub={"essential": True},
    tid={"essential": True},
    sid={"essential": True},
    exp={"essential": True},
    iat={"essential": True},
)


def read_access_token(token: str) -> Claims | None:
    """The token's claims if it is ours, of the right type, for this audience and in date; else None."""
    if len(token) > 4096 or token.count(".") != 2:
        return None
    try:
        decoded = jwt.decode(token, KeySet(list(_load())), algorithms=[ALGORITHM])
        if decoded.header.get("typ") != TYPE or decoded.claims.get("iss") != issuer():
            return None
        _REQUIREMENTS.validate(decoded.claims)
    except (JoseError, ValueError, TypeError):  # whatever is wrong with it, it is not a token of ours
        return None
    subject, tenant, sign_in = (decoded.claims[name] for name in ("sub", "tid", "sid"))
    if not all(isinstance(value, str) for value in (subject, tenant, sign_in)):
        return None
    return Claims(subject, tenant, sign_in)


def jwks() -> dict[str, Any]:
    """The public keys, by which others can check our tokens (RFC 7517)."""
    return dict(KeySet(list(_load())).as_dict(private=False))
