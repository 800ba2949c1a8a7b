"""Who is let in where: actors with every kind of credential, and for each the answer that the contract
foretells by its own extensions (``security``, ``x-required-scope``, ``x-operators``,
``x-required-capability`` and ``x-roles``).

Nothing happens to anything: a probe is a call that nobody's rights make valid. Rights come before validation,
so whoever is let in is told what is wrong with the request.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import select, update

from models.access import SCOPES, ApiKey, digest, new_key
from models.base import now
from models.bots import new_public_key
from models.tenancy import PLATFORM, Subscription, User
from tests.contract import conformance
from tests.contract.conformance import described
from tests.contract.specimens import ORIGIN, Operation, code_of, unknown_id
from tests.servers import PASSWORD, Server, Tenant, new_user

ROLES: dict[str, frozenset[str]] = {
    role: frozenset(row["scopes"]) for role, row in described().spec["x-roles"].items()
}
PASSES = "400 validation-failed"
"""Let in, and told that the probe is no valid request."""
WELCOME = "200"
"""The same of an operation that ignores what it does not know."""
NOBODY, NARROW, NOT_HERE, NOT_PAID, UNKNOWN, NOT_FROM_THERE = (
    "401 unauthorized",
    "403 insufficient-scope",
    "403 forbidden",
    "403 capability-required",
    "404 not-found",
    "403 origin-not-allowed",
)
EXPIRED = """
import sys, time
from storage import tokens
the_past = time.time() - tokens.LIFETIME - 1
tokens.time.time = lambda: the_past
print(tokens.make_access_token(*sys.argv[1:]))
"""
"""A program of the installation an hour ago, so to say: its tokens are genuine, and have run out."""

Headers = dict[str, str]


def _key(key: str) -> Headers:
    return {"X-API-Key": key}


def _bearer(token: str) -> Headers:
    return {"Authorization": f"Bearer {token}"}


def _part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _claims(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    return claims


class Cast:
    """Makes the actors' credentials, in a tenant that is theirs alone."""

    def __init__(self, server: Server, operator_key: str, unpaid: Tenant) -> None:
        self.server, self.unpaid = server, unpaid
        self.tenant = server.bootstrap("Tenant of the matrix")
        self.owner = conformance.client(server.url, self.tenant["api_key"])
        self.anonymous = conformance.client(server.url, None)
        self.operators: Tenant = {"tenant_id": PLATFORM, "user_id": self.user_of(operator_key)}
        self.signed_in: dict[str, dict[str, Any]] = {role: self.sign_in(role) for role in ROLES}

    def close(self) -> None:
        """End the connections."""
        self.owner.close()
        self.anonymous.close()

    def user_of(self, key: str) -> str:
        """The maker of a key."""
        with self.server.database() as db:
            return db.scalars(select(ApiKey).where(ApiKey.key_hash == digest(key))).one().user_id

    def sign_in(self, role: str) -> dict[str, Any]:
        """Tokens of a new person of that role, and the person's ``user_id``."""
        with self.server.database() as db:
            if role == "operator":
                person = User(tenant_id=PLATFORM, email=f"{unknown_id()}@example.com", role=role)
                db.add(person)
            else:
                person = new_user(db, self.tenant, role)
            person.password_hash = db.get_one(User, self.tenant["user_id"]).password_hash
            db.flush()
            user_id, email = person.id, person.email
        body = {"email": email, "password": PASSWORD}
        answer = self.anonymous.post("/api/v1/auth/login", json=body).raise_for_status()
        return {**answer.json(), "user_id": user_id}

    def access(self, role: str = "owner") -> str:
        """An access token that is good."""
        return str(self.signed_in[role]["access_token"])

    def key(self, *, of: Tenant | None = None, **options: Any) -> str:
        """An API key that is good."""
        return self.server.issue_key(tenant=of or self.tenant, **options)

    def changed_key(self, **changes: Any) -> str:
        """A key of the owner, changed since."""
        key = self.key()
        with self.server.database() as db:
            db.execute(update(ApiKey).where(ApiKey.key_hash == digest(key)).values(**changes))
        return key

    def change(self, user_id: str, **changes: Any) -> None:
        """What the owner does to one of the people."""
        self.owner.patch(f"/api/v1/tenants/users/{user_id}", json=changes).raise_for_status()

    def expired(self) -> str:
        """A genuine access token that has run out."""
        claims = _claims(self.access())
        done = subprocess.run(  # noqa: S603 - our own program and arguments
            [sys.executable, "-c", EXPIRED, claims["sub"], claims["tid"], claims["sid"]],
            env=self.server.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def promoted(self) -> str:
        """A viewer's access token in which the viewer wrote the owner's name."""
        head, _, signature = self.access("viewer").split(".")
        return f"{head}.{self.access().split('.')[1]}.{signature}"

    def signed_by_another(self) -> str:
        """The owner's access token, signed with a key that the installation never had."""
        said = ".".join(self.access().split(".")[:2])
        signature = Ed25519PrivateKey.generate().sign(said.encode())
        return f"{said}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"

    def unsigned(self) -> str:
        """The owner's access token as one that needs no signature."""
        return f"{_part({'typ': 'at+jwt', 'alg': 'none'})}.{self.access().split('.')[1]}."

    def signed_out(self) -> str:
        """An access token of a device that signed out."""
        tokens = self.sign_in("owner")
        body = {"refresh_token": tokens["refresh_token"]}
        self.anonymous.post("/api/v1/auth/logout", json=body).raise_for_status()
        return str(tokens["access_token"])

    def bot(self, of: httpx.Client | None = None) -> dict[str, Any]:
        """A bot on the page ``ORIGIN``, with one conversation: ``id public_key session_id visitor_token``."""
        client = of or self.owner
        persona = client.get("/api/v1/chat/personas").json()["results"][0]["id"]
        body = {"name": "Desk", "persona_id": persona, "allowed_origins": [ORIGIN]}
        body |= {"rate_limit_per_minute": 1000}
        made = client.post("/api/v1/chat/bots", json=body).raise_for_status().json()
        return {"id": made["id"], "public_key": made["public_key"], **self.begin(made["public_key"])}

    def begin(self, public_key: str) -> dict[str, Any]:
        """A visitor's conversation: ``session_id visitor_token``."""
        at = f"/api/v1/embed/{public_key}/sessions"
        answer = self.anonymous.post(at, headers={"Origin": ORIGIN}).raise_for_status()
        return {name: answer.json()[name] for name in ("session_id", "visitor_token")}

    def suspended_token(self) -> str:
        """An access token of somebody whom the owner switched off."""
        tokens = self.sign_in("admin")
        self.change(tokens["user_id"], is_active=False)
        return str(tokens["access_token"])

    def suspended_key(self) -> str:
        """A key of somebody whom the owner switched off."""
        key = self.key(role="admin")
        self.change(self.user_of(key), is_active=False)
        return key

    def demoted_key(self) -> str:
        """A key with all of an owner's scopes, whose maker is a viewer now."""
        key = self.key(role="owner")
        self.change(self.user_of(key), role="viewer")
        return key

    def key_of_a_closed_tenant(self) -> str:
        """An owner's key, of a tenant that the operators switched off."""
        closed = self.server.bootstrap("Closed tenant")
        at, change = f"/api/v1/tenants/{closed['tenant_id']}", {"is_active": False}
        operator = _bearer(self.access("operator"))
        self.anonymous.patch(at, headers=operator, json=change).raise_for_status()
        return closed["api_key"]


Credential = Callable[[Cast], Headers]


def _signed_in(role: str) -> Credential:
    return lambda cast: _bearer(cast.access(role))


def _of_owner(scope: str) -> Credential:
    return lambda cast: _key(cast.key(scopes=[scope]))


def _of_operator(scope: str) -> Credential:
    return lambda cast: _key(cast.key(of=cast.operators, scopes=[scope]))


@dataclass(frozen=True, slots=True)
class Actor:
    """Somebody who calls. ``role`` None: whoever this claims to be, it is nobody."""

    name: str
    credential: Credential = field(repr=False)
    role: str | None = None
    scopes: frozenset[str] = frozenset()
    has_capabilities: bool = True


ACTORS: tuple[Actor, ...] = (
    Actor("nobody", lambda cast: {}),
    Actor("two credentials, both right", lambda cast: _key(cast.key()) | _bearer(cast.access())),
    Actor("a password", lambda cast: {"Authorization": "Basic dXNlcjpwYXNzd29yZA=="}),
    Actor("a misspelt key", lambda cast: _key("bk_live_short")),
    Actor("a forged key", lambda cast: _key(new_key())),
    Actor("a forged key as a token", lambda cast: _bearer(new_key())),
    Actor("an expired key", lambda cast: _key(cast.changed_key(expires_at=now()))),
    Actor("a revoked key", lambda cast: _key(cast.changed_key(revoked_at=now()))),
    Actor("an expired token", lambda cast: _bearer(cast.expired())),
    Actor("a token with another's name in it", lambda cast: _bearer(cast.promoted())),
    Actor("a token signed by another key", lambda cast: _bearer(cast.signed_by_another())),
    Actor("an unsigned token", lambda cast: _bearer(cast.unsigned())),
    Actor("a token of a device that signed out", lambda cast: _bearer(cast.signed_out())),
    Actor("a refresh token", lambda cast: _bearer(cast.signed_in["owner"]["refresh_token"])),
    Actor("a visitor's token", lambda cast: _bearer(cast.bot()["visitor_token"])),
    Actor("an access token as a key", lambda cast: _key(cast.access())),
    Actor("a suspended person's token", lambda cast: _bearer(cast.suspended_token())),
    Actor("a suspended person's key", lambda cast: _key(cast.suspended_key())),
    Actor("the key of a closed tenant", lambda cast: _key(cast.key_of_a_closed_tenant())),
    *(Actor(f"{role}, signed in", _signed_in(role), role, scopes) for role, scopes in ROLES.items()),
    *(Actor(f"a key with {scope} alone", _of_owner(scope), "owner", frozenset({scope})) for scope in SCOPES),
    *(
        Actor(f"an operator's key with {scope} alone", _of_operator(scope), "operator", frozenset({scope}))
        for scope in sorted(ROLES["operator"])
    ),
    Actor("a key as a token", lambda cast: _bearer(cast.key()), "owner", ROLES["owner"]),
    Actor("a demoted owner's key", lambda cast: _key(cast.demoted_key()), "viewer", ROLES["viewer"]),
    Actor(
        "the owner of a tenant without capabilities",
        lambda cast: _key(cast.unpaid["api_key"]),
        "owner",
        ROLES["owner"],
        has_capabilities=False,
    ),
)


def foretold(operation: Operation, actor: Actor) -> str:
    """The answer to the actor's probe, from the contract's extensions alone."""
    passes = WELCOME if operation.is_lenient and operation.body is None else PASSES
    if operation.is_public:
        return passes
    if actor.role is None:
        return NOBODY
    if operation.scope != "any" and operation.scope not in actor.scopes:
        return NARROW
    if operation.spec.get("x-operators") not in (
        ("only", "also") if actor.role == "operator" else (None, "also")
    ):
        return NOT_HERE
    if operation.spec.get("x-required-capability") and not actor.has_capabilities:
        return NOT_PAID
    return passes


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody who calls the bot service. ``token``: None, "bad", "good", or of "another" conversation."""

    name: str
    call: Callable[[Cast], tuple[dict[str, Any], Headers]] = field(repr=False)
    """The bot as ``Cast.bot`` gives it, and what is sent along."""
    finds: bool = True
    from_page: bool = True
    token: str | None = None
    has_capability: bool = True


def _with(bot: dict[str, Any], token: str | None = None, **headers: str) -> tuple[dict[str, Any], Headers]:
    return bot, {"Origin": ORIGIN, **(_bearer(token) if token else {}), **headers}


def _own(bot: dict[str, Any], **headers: str) -> tuple[dict[str, Any], Headers]:
    return _with(bot, bot["visitor_token"], **headers)


def _paused(cast: Cast) -> dict[str, Any]:
    bot = cast.bot()
    cast.owner.post(f"/api/v1/chat/bots/{bot['id']}/toggle-active").raise_for_status()
    return bot


def _unpaid(cast: Cast) -> dict[str, Any]:
    tenant = cast.server.bootstrap("Tenant that stops paying")
    with conformance.client(cast.server.url, tenant["api_key"]) as owner:
        bot = cast.bot(owner)
    with cast.server.database() as db:
        ours = Subscription.tenant_id == tenant["tenant_id"]
        db.execute(update(Subscription).where(ours).values(capabilities=[]))
    return bot


def _neighbours(cast: Cast) -> tuple[dict[str, Any], Headers]:
    bot = cast.bot()
    return _with(bot, cast.begin(bot["public_key"])["visitor_token"])


VISITORS: tuple[Visitor, ...] = (
    Visitor("without a token", lambda cast: _with(cast.bot())),
    Visitor("with a token", lambda cast: _own(cast.bot()), token="good"),
    Visitor("with a forged token", lambda cast: _with(cast.bot(), "bv_forged"), token="bad"),
    Visitor("with another bot's", lambda cast: _with(cast.bot(), cast.bot()["visitor_token"]), token="bad"),
    Visitor("with another conversation's", _neighbours, token="another"),
    Visitor("with the owner's key", lambda cast: _with(cast.bot(), cast.key()), token="bad"),
    Visitor("with the owner's access token", lambda cast: _with(cast.bot(), cast.access()), token="bad"),
    Visitor(
        "from another page",
        lambda cast: _own(cast.bot(), Origin="https://evil.example"),
        from_page=False,
        token="good",
    ),
    Visitor("from no page", lambda cast: (cast.bot(), {}), from_page=False),
    Visitor("of a paused bot", lambda cast: _own(_paused(cast)), finds=False),
    Visitor("of no bot", lambda cast: _own({**cast.bot(), "public_key": new_public_key()}), finds=False),
    Visitor(
        "of a tenant that stopped paying",
        lambda cast: _own(_unpaid(cast)),
        token="good",
        has_capability=False,
    ),
)


def foretold_to_visitor(operation: Operation, visitor: Visitor) -> str:
    """The answer to a visitor's probe: the bot, the page, the token, the capability, the conversation."""
    is_of_conversation = "{id}" in operation.path
    if not visitor.finds:
        return UNKNOWN
    reads_with_token = operation.method == "get" and visitor.token in ("good", "another")
    if not visitor.from_page and not reads_with_token:
        return NOT_FROM_THERE
    if visitor.token == "bad" or (visitor.token is None and is_of_conversation):
        return NOBODY
    if not visitor.has_capability:
        return NOT_PAID
    if visitor.token == "another" and is_of_conversation:
        return UNKNOWN
    return PASSES


def probe(operation: Operation, ids: dict[str, str] | None = None) -> dict[str, Any]:
    """A call of the operation that is not valid, whoever sends it, for ``httpx.Client.request``."""
    path = operation.path
    for parameter in operation.parameters:
        if parameter["in"] == "path":
            name = parameter["name"]
            path = path.replace(f"{{{name}}}", (ids or {}).get(name) or unknown_id())
    call = {"method": operation.method.upper(), "url": path, "params": {"surprise": "1"}}
    if operation.body is not None:
        call |= {"files": {"surprise": b"1"}} if operation.body[0] == "multipart/form-data" else {"json": {}}
    return call


def told(response: httpx.Response) -> str:
    """An answer as the tables name it."""
    return f"{response.status_code} {code_of(response)}" if response.is_error else f"{response.status_code}"
