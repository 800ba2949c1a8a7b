"""One's own account: registering, first and new passwords, the second factor, signed-in devices."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import select

from handlers.auth import caller
from handlers.replies import Listing, Paging
from handlers.requests import Exchange
from handlers.schemas import accounts as wire
from models.access import Caller, SignIn
from models.base import now
from models.errors import Conflict, FeatureDisabled, Forbidden, NotFound, RuleBroken
from models.letters import WELCOMES, LetterKind
from models.tenancy import User
from storage import accounts, second_factors, secrets, throttle
from storage.database import platform, reading, transaction
from storage.settings import settings
from storage.threads import in_thread

FRESH = timedelta(minutes=15)
"""How recently somebody has to have signed in who takes the second factor away."""
ORDERINGS = {"created_at": SignIn.created_at, "last_used_at": SignIn.updated_at}
COLUMNS = ("id", "address", "user_agent", "is_current", "created_at", "last_used_at", "expires_at")


def register(body: dict[str, Any], exchange: Exchange) -> tuple[None, int]:
    """Ask for a tenant; a mail to its owner has the link that confirms it."""
    if not settings().open_registration:
        raise FeatureDisabled("This installation is closed. Ask its operator for a tenant.")
    email = _address(body)
    throttle.count_mail(email, exchange.client)
    accounts.afterwards(accounts.register, email, body["tenant"], body.get("name", ""))
    return None, 202


def request_reset(body: dict[str, Any], exchange: Exchange) -> tuple[None, int]:
    """Ask for a mail by which a forgotten password can be replaced."""
    email = _address(body)
    throttle.count_mail(email, exchange.client)
    accounts.afterwards(accounts.send_reset, email)
    return None, 202


async def reset(body: dict[str, Any]) -> None:
    """Set a new password by the link of a mail; every device is signed out."""
    await _set_password(body, (LetterKind.RESET,))


async def accept(body: dict[str, Any]) -> None:
    """Set the first password by the link of an invitation or a registration."""
    await _set_password(body, WELCOMES)


async def _set_password(body: dict[str, Any], kinds: tuple[LetterKind, ...]) -> None:
    await in_thread(_look_at, body["token"], kinds)  # a hash is dear: only for a link that is good
    hashed = await secrets.in_slot(secrets.hash_password, body["password"])
    await in_thread(_redeem, body["token"], kinds, hashed)


def _look_at(token: str, kinds: tuple[LetterKind, ...]) -> None:
    with platform(writes=False) as db:
        if accounts.redeem(db, token, kinds) is None:
            raise _not_good()


def _redeem(token: str, kinds: tuple[LetterKind, ...], hashed: str) -> None:
    with platform() as db:
        found = accounts.redeem(db, token, kinds)
        if found is None:
            raise _not_good()
        _, user = found
        if user.is_invited and accounts.is_taken(db, user.email):
            raise Conflict("This address has an account with another tenant. Ask to be invited with another.")
        user.password_hash = hashed
        accounts.use_up(db, user.id)
        accounts.sign_out(db, user.id)


def _not_good() -> RuleBroken:
    return RuleBroken("The link is wrong, was used already, or is out of date.", pointer="/token")


async def change_password(body: dict[str, Any], exchange: Exchange) -> None:
    """Set another password; every other device is signed out."""
    await secrets.in_slot(_verify, body["current_password"], "/current_password", exchange.client)
    hashed = await secrets.in_slot(secrets.hash_password, body["new_password"])
    await in_thread(_replace_password, caller(), hashed)


def _verify(password: str, pointer: str, address: str) -> None:
    """Hold the caller's password against the stored one; failures count as failed sign-ins do."""
    with reading(caller()) as db:
        user = db.require(User, caller().user_id)
    throttle.check(user.email, address)
    if not secrets.password_fits(password, user.password_hash):
        throttle.count_failure(user.email, address)
        raise RuleBroken("The password is wrong.", pointer=pointer)


def _replace_password(of: Caller, hashed: str) -> None:
    with transaction(of) as db:
        user = db.require(User, of.user_id, lock=True)
        user.password_hash = hashed
        accounts.use_up(db, user.id)
        accounts.sign_out(db, user.id, except_id=of.sign_in_id)


async def set_up_mfa(body: dict[str, Any], exchange: Exchange) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Begin a second factor with the password, then enable it with its first code."""
    if "password" in body:
        await secrets.in_slot(_verify, body["password"], "/password", exchange.client)
        state = await in_thread(_begin_mfa)
    else:
        state = await in_thread(_enable_mfa, body["otp"], exchange.client)
    return state, 200, {"Cache-Control": "no-store"}


def _begin_mfa() -> dict[str, Any]:
    with transaction(caller()) as db:
        secret, uri, codes = second_factors.begin(db, db.require(User, caller().user_id))
    return {"enabled": False, "secret": secret, "uri": uri, "recovery_codes": codes}


def _enable_mfa(otp: str, address: str) -> dict[str, Any]:
    with transaction(caller()) as db:
        user = db.require(User, caller().user_id)
        throttle.check(user.email, address)
        enabled = second_factors.enable(db, user.id, otp)
        if enabled:
            accounts.sign_out(db, user.id, except_id=caller().sign_in_id)
    if not enabled:
        throttle.count_failure(user.email, address)
        raise RuleBroken("The code is wrong.", pointer="/otp")
    return {"enabled": True, "secret": None, "uri": None, "recovery_codes": []}


def remove_mfa() -> None:
    """Take the second factor away; only for a device that has just signed in with it."""
    with transaction(caller()) as db:
        device = db.get(SignIn, caller().sign_in_id) if caller().sign_in_id else None
        if device is None or device.created_at < now() - FRESH:
            raise Forbidden("Sign in again, with the second factor, and do this within 15 minutes.")
        second_factors.remove(db, caller().user_id)


def list_devices(paging: Paging) -> Listing:
    """The caller's signed-in devices."""
    current = caller().sign_in_id
    return Listing(
        _open_devices(),
        lambda device: wire.show(device, current),
        paging,
        ORDERINGS,
        SignIn.id,
        caller(),
        columns=COLUMNS,
    )


def sign_out_everywhere() -> None:
    """End every sign-in of the caller, this one too."""
    with transaction(caller()) as db:
        accounts.sign_out(db, caller().user_id)


def sign_out_device(id: str) -> None:
    """End one sign-in of the caller."""
    with transaction(caller()) as db:
        device = db.scalar(_open_devices().where(SignIn.id == id).with_for_update())
        if device is None:
            raise NotFound()
        device.end()


def _open_devices() -> Any:
    return select(SignIn).where(
        SignIn.user_id == caller().user_id, SignIn.ended_at.is_(None), SignIn.expires_at > now()
    )


def _address(body: dict[str, Any]) -> str:
    email: str = body["email"].strip().lower()
    return email
