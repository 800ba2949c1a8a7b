"""Signing in with a password and a second factor, renewing and ending access, and one's own profile."""

from __future__ import annotations

from typing import Any

import structlog
from sqlalchemy import update

from handlers.auth import caller
from handlers.problems import Problem
from handlers.requests import Exchange
from handlers.schemas import sign_in as wire
from models.access import SignIn
from models.tenancy import Tenant, User
from storage import accounts, second_factors, secrets, throttle, tokens
from storage.database import Session, platform, reading, transaction
from storage.threads import in_thread

log = structlog.get_logger("booga.sign_in")

Answer = tuple[dict[str, Any], int, dict[str, str]]


async def login(body: dict[str, Any], exchange: Exchange) -> Answer:
    """Tokens for a person's address and password."""
    email, address = body["email"].strip().lower(), exchange.client
    await in_thread(throttle.check, email, address)
    user_id = await secrets.in_slot(_verified, email, body["password"], body.get("otp"), address)
    return await in_thread(_begin, user_id, address, exchange.user_agent)


def refresh(body: dict[str, Any]) -> Answer:
    """The next pair of tokens for the newest refresh token; a spent one ends the sign-in."""
    answer = None
    with platform() as db:
        sign_in, rotation = _of_token(db, body["refresh_token"])
        if sign_in is not None:
            was_open = sign_in.is_open()
            user = accounts.active(db, User.id == sign_in.user_id)
            if user is not None and sign_in.spend(rotation):
                answer = _tokens(sign_in)
            elif was_open and not sign_in.is_open():
                log.warning("spent refresh token", tenant=sign_in.tenant_id, sign_in=sign_in.id)
    if answer is None:
        raise Problem("unauthorized", "The refresh token is not valid. Sign in again.")
    return answer


def logout(body: dict[str, Any]) -> None:
    """End the sign-in that the refresh token belongs to, or all of the person's; what is no token of ours is
    as good as ended.
    """
    with platform() as db:
        sign_in, _ = _of_token(db, body["refresh_token"])
        if sign_in is None:
            return
        if body.get("everywhere") and sign_in.is_open():
            accounts.sign_out(db, sign_in.user_id)
        sign_in.end()


def me() -> dict[str, Any]:
    """The caller as a person: who, where, and what this credential may do."""
    with reading(caller()) as db:
        return _profile(db, db.require(User, caller().user_id))


def update_me(body: dict[str, Any]) -> dict[str, Any]:
    """Change the caller's own name."""
    with transaction(caller()) as db:
        user = db.require(User, caller().user_id, lock=True)
        user.name = body["name"]
        db.flush()
        return _profile(db, user)


def _verified(email: str, password: str, otp: str | None, address: str) -> str:
    """The id of the user with this address and password. Every other case takes as long and says the same.

    The count is asked again after the hash: of tries made at once, no more than the limit learn anything.
    """
    throttle.check(email, address)
    with platform(writes=False) as db:
        user = accounts.active(db, User.email == email)
    if not secrets.password_fits(password, user.password_hash if user else None) or user is None:
        throttle.count_failure(email, address)
        raise Problem("unauthorized", "The address or the password is wrong.")
    throttle.check(email, address)
    if not second_factors.passes(user.id, otp):
        if otp is None:
            raise Problem(
                "unauthorized", "Send the second factor's code as otp.", meta={"otp_required": True}
            )
        throttle.count_failure(email, address)
        raise Problem("unauthorized", "The second factor's code is wrong, or was used already.")
    if secrets.is_outdated(user.password_hash or ""):
        renewed = secrets.hash_password(password)
        with (
            platform() as db
        ):  # as a statement: it is the same password, and the audit log has no change to tell
            db.execute(update(User).where(User.id == user.id).values(password_hash=renewed))
    return user.id


def _begin(user_id: str, address: str, user_agent: str) -> Answer:
    with platform() as db:
        user = db.require(User, user_id)
        sign_in = SignIn.begin(
            tenant_id=user.tenant_id,
            user_id=user.id,
            seed=tokens.new_seed(),
            address=address,
            user_agent=user_agent,
        )
        return _tokens(db.put(sign_in))


def _tokens(sign_in: SignIn) -> Answer:
    answer = {
        "access_token": tokens.make_access_token(sign_in.user_id, sign_in.tenant_id, sign_in.id),
        "refresh_token": tokens.refresh_token(sign_in),
        "token_type": "Bearer",
        "expires_in": tokens.LIFETIME,
    }
    return answer, 200, {"Cache-Control": "no-store"}


def _of_token(db: Session, token: str) -> tuple[SignIn | None, int]:
    """The sign-in that a refresh token of ours belongs to, and the token's rotation."""
    place = tokens.place_of(token)
    if place is None:
        return None, 0
    sign_in = db.get(SignIn, place[0], with_for_update=True)
    if sign_in is None or not tokens.is_genuine(token, sign_in, place[1]):
        return None, 0
    return sign_in, place[1]


def _profile(db: Session, user: User) -> dict[str, Any]:
    return wire.show(
        {
            "id": user.id,
            "email": user.email,
            "name": user.name,
            "role": user.role,
            "tenant": db.get_one(Tenant, user.tenant_id),
            "scopes": sorted(caller().scopes),
            "capabilities": sorted(caller().capabilities),
            "created_at": user.created_at,
        }
    )
