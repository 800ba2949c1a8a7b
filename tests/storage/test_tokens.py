"""Access tokens: what we sign is read, and nothing else is."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from joserfc import jwt
from joserfc.jwk import KeySet, OKPKey

from models.access import SignIn, SigningKey
from models.base import new_id, now
from storage import secrets, tokens
from storage.database import platform

pytestmark = pytest.mark.usefixtures("migrated")

USER, TENANT, DEVICE = (f"01934c5e-7d2a-7c3b-9a44-5f1d2b6c8e9{digit}" for digit in range(3))


def encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).decode().rstrip("=")


@dataclass
class Forgery:
    """A token under one's own hands, genuine until something of it is changed."""

    key: Ed25519PrivateKey
    header: dict[str, Any]
    claims: dict[str, Any] = field(
        default_factory=lambda: {
            "iss": tokens.issuer(),
            "aud": tokens.AUDIENCE,
            "sub": USER,
            "tid": TENANT,
            "sid": DEVICE,
            "iat": int(time.time()),
            "exp": int(time.time()) + 60,
        }
    )
    payload: bytes | None = None

    def signed(self) -> str:
        """The token, signed as it stands."""
        payload = json.dumps(self.claims).encode() if self.payload is None else self.payload
        head = json.dumps(self.header, separators=(",", ":")).encode()
        signing_input = f"{encoded(head)}.{encoded(payload)}"
        return f"{signing_input}.{encoded(self.key.sign(signing_input.encode()))}"

    def without_signature(self) -> str:
        return self.signed().rpartition(".")[0] + "."

    def by_public_key(self) -> str:
        """HMAC with the public key, which a careless reader would check with that very key."""
        signing_input = self.signed().rpartition(".")[0]
        mac = HMAC(self.key.public_key().public_bytes_raw(), SHA256())
        mac.update(signing_input.encode())
        return f"{signing_input}.{encoded(mac.finalize())}"


@pytest.fixture
def forgery() -> Forgery:
    return fresh()


def fresh() -> Forgery:
    own = tokens._signing()
    private = own.raw_value
    assert isinstance(private, Ed25519PrivateKey)
    return Forgery(private, {"typ": "at+jwt", "alg": "Ed25519", "kid": own.kid})


def changed(part: str, **values: Any) -> Callable[[Forgery], str]:
    """Signed with the right key, but with these values (None: without that name)."""

    def make(forgery: Forgery) -> str:
        target = getattr(forgery, part)
        target.update(values)
        for name in [name for name, value in values.items() if value is None]:
            del target[name]
        return forgery.signed()

    return make


def of_other_key(forgery: Forgery) -> str:
    forgery.key = Ed25519PrivateKey.generate()
    return forgery.signed()


def of_embedded_key(forgery: Forgery) -> str:
    forgery.key = Ed25519PrivateKey.generate()
    x = encoded(forgery.key.public_key().public_bytes_raw())
    forgery.header |= {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": x}}
    return forgery.signed()


def of_another_of_our_keys(forgery: Forgery) -> str:
    with platform() as db:
        db.add(tokens._new_key())
    newest = tokens._load(older_than=0)[-1].pair
    assert newest.kid != forgery.header["kid"]
    forgery.header["kid"] = newest.kid
    return forgery.signed()


def of_retired_key(forgery: Forgery) -> str:
    with platform() as db:
        retired = now() - timedelta(seconds=tokens.LIFETIME + 1)
        db.get_one(SigningKey, forgery.header["kid"]).retired_at = retired
    tokens._load(older_than=0)
    return forgery.signed()


def with_algorithm(name: str, sign: Callable[[Forgery], str]) -> Callable[[Forgery], str]:
    def make(forgery: Forgery) -> str:
        forgery.header["alg"] = name
        return sign(forgery)

    return make


def with_payload(payload: bytes) -> Callable[[Forgery], str]:
    def make(forgery: Forgery) -> str:
        forgery.payload = payload
        return forgery.signed()

    return make


def tampered(forgery: Forgery) -> str:
    head, _, signature = forgery.signed().split(".")
    forgery.claims["sub"] = TENANT
    return f"{head}.{forgery.signed().split('.')[1]}.{signature}"


def a_refresh_token(forgery: Forgery) -> str:
    return tokens.refresh_token(SignIn(id=DEVICE, seed=tokens.new_seed(), rotation=0))


def nested(forgery: Forgery) -> str:
    forgery.payload = forgery.signed().encode()
    forgery.header["cty"] = "JWT"
    return forgery.signed()


SOON, PAST = int(time.time()) + 3600, int(time.time()) - 1

FORGED: dict[str, Callable[[Forgery], str]] = {
    "algorithm none": with_algorithm("none", Forgery.without_signature),
    "algorithm nOnE": with_algorithm("nOnE", Forgery.without_signature),
    "no signature": Forgery.without_signature,
    "HS256 with the public key": with_algorithm("HS256", Forgery.by_public_key),
    "HMAC under our own header": Forgery.by_public_key,
    "the algorithm's older name": with_algorithm("EdDSA", Forgery.signed),
    "another key": of_other_key,
    "a key that it brings along": of_embedded_key,
    "a key to be fetched": changed("header", jku="http://127.0.0.1:9/keys.json"),
    "another of our keys": of_another_of_our_keys,
    "a retired key": of_retired_key,
    "an unknown key": changed("header", kid=new_id()),
    "no key": changed("header", kid=None),
    "a path as its key": changed("header", kid="../../dev/null"),
    "an identity token's type": changed("header", typ="JWT"),
    "no type": changed("header", typ=None),
    "a critical extension": changed("header", crit=["exp"], exp=SOON),
    "an unencoded payload": changed("header", b64=False, crit=["b64"]),
    "a changed payload": tampered,
    "another audience": changed("claims", aud="another-api"),
    "no audience": changed("claims", aud=None),
    "another issuer": changed("claims", iss="https://elsewhere.example"),
    "no issuer": changed("claims", iss=None),
    "expired": changed("claims", exp=PAST),
    "no expiry": changed("claims", exp=None),
    "an expiry in words": changed("claims", exp="tomorrow"),
    "an expiry that is no number": with_payload(b'{"exp": NaN}'),
    "not yet": changed("claims", nbf=SOON),
    "issued in the future": changed("claims", iat=SOON),
    "no subject": changed("claims", sub=None),
    "no tenant": changed("claims", tid=None),
    "no device": changed("claims", sid=None),
    "a list of tenants": changed("claims", tid=[TENANT]),
    "a payload that is no object": with_payload(b'["a", "list"]'),
    "a payload that is no JSON": with_payload(b"\xff\xfe"),
    "another token inside": nested,
    "a refresh token": a_refresh_token,
    "nothing": lambda forgery: "",
    "dots alone": lambda forgery: "..",
    "two parts": lambda forgery: forgery.signed().rpartition(".")[0],
    "four parts": lambda forgery: forgery.signed() + ".AAAA",
    "a space at its end": lambda forgery: forgery.signed() + " ",
    "padding": lambda forgery: forgery.signed() + "==",
    "a letter from elsewhere": lambda forgery: "é" + forgery.signed(),
    "huge": lambda forgery: "A" * 5_000_000,
    "huge and well formed": changed("claims", pad="A" * 3000),
    "deep": lambda forgery: f"{encoded(b'[' * 1200)}.e30.AAAA",
}


def test_the_forger_can_write_a_genuine_one(forgery: Forgery) -> None:
    """Else no forgery below would prove anything."""
    assert tokens.read_access_token(forgery.signed()) == tokens.Claims(USER, TENANT, DEVICE)


def test_forged(subtests: pytest.Subtests) -> None:
    for what, forge in FORGED.items():
        with subtests.test(what):
            assert tokens.read_access_token(forge(fresh())) is None


def test_what_we_sign_is_read() -> None:
    token = tokens.make_access_token(USER, TENANT, DEVICE)
    assert tokens.read_access_token(token) == tokens.Claims(USER, TENANT, DEVICE)


def test_others_can_check_it() -> None:
    token = tokens.make_access_token(USER, TENANT, DEVICE)
    public = KeySet([OKPKey.import_key(key) for key in tokens.jwks()["keys"]])
    decoded = jwt.decode(token, public, algorithms=["Ed25519"])
    assert decoded.claims["exp"] - decoded.claims["iat"] == tokens.LIFETIME
    assert all("d" not in key for key in tokens.jwks()["keys"])


def kid_of(token: str) -> str:
    return str(json.loads(base64.urlsafe_b64decode(token.partition(".")[0] + "=="))["kid"])


def retire(kid: str, since: timedelta) -> None:
    with platform() as db:
        db.get_one(SigningKey, kid).retired_at = now() - since
    tokens._load(older_than=0)


def shown() -> list[str]:
    tokens._load(older_than=0)
    return [key["kid"] for key in tokens.jwks()["keys"]]


def test_a_new_key_is_shown_before_it_signs_and_tokens_outlive_the_old_one() -> None:
    token = tokens.make_access_token(USER, TENANT, DEVICE)
    old = kid_of(token)
    tokens.rotate()
    new, other = shown()
    assert other == old
    assert kid_of(tokens.make_access_token(USER, TENANT, DEVICE)) == old, "not every worker has the new one"

    retire(old, timedelta(0))
    assert kid_of(tokens.make_access_token(USER, TENANT, DEVICE)) == new
    assert shown() == [new, old]
    assert tokens.read_access_token(token) is not None

    retire(old, timedelta(seconds=tokens.LIFETIME + 1))
    assert shown() == [new]
    assert tokens.read_access_token(token) is None


def test_a_retired_key_is_refused_also_by_who_read_it_earlier(monkeypatch: pytest.MonkeyPatch) -> None:
    token = tokens.make_access_token(USER, TENANT, DEVICE)
    read_at, (key,) = tokens._keys
    monkeypatch.setattr(tokens, "_keys", (read_at, [replace(key, signs_until=time.time() - tokens.LIFETIME)]))
    monkeypatch.setattr(tokens, "_ASK_AGAIN_SECONDS", tokens._KEYS_KNOWN_SECONDS)
    assert tokens.read_access_token(token) is None


def test_keys_are_removed_when_no_token_needs_them() -> None:
    old = kid_of(tokens.make_access_token(USER, TENANT, DEVICE))
    tokens.rotate()
    retire(old, timedelta(seconds=tokens.LIFETIME + 1))
    tokens.rotate()
    with platform(writes=False) as db:
        assert db.get(SigningKey, old) is None
    assert len(shown()) == 2


def test_another_workers_new_key_is_found_at_once(forgery: Forgery) -> None:
    """A token that names a key which this process has not read yet."""
    pair = OKPKey.generate_key("Ed25519")
    private = pair.raw_value
    assert isinstance(private, Ed25519PrivateKey)
    with platform() as db:
        made = db.put(SigningKey(algorithm="Ed25519", private_key=secrets.seal(pair.as_pem(private=True))))
    forgery.key, forgery.header["kid"] = private, made.id
    read_at, known = tokens._keys
    tokens._keys = (read_at - tokens._ASK_AGAIN_SECONDS, known)
    assert tokens.read_access_token(forgery.signed()) is not None


def test_refresh_tokens_tell_their_place() -> None:
    device = SignIn(id=DEVICE, seed=tokens.new_seed(), rotation=7)
    token = tokens.refresh_token(device)
    assert tokens.place_of(token) == (DEVICE, 7)
    assert tokens.is_genuine(token, device, 7)
    assert not tokens.is_genuine(token, device, 6)
    assert not tokens.is_genuine(token, SignIn(id=DEVICE, seed=tokens.new_seed(), rotation=7), 7)
    device.rotation = 8
    assert tokens.is_genuine(token, device, 7), "a spent one is still known as ours"
