"""Failed sign-ins are counted, for the account and for the address, and too many close the door for a while.

A moving window: never more than the limit within any 15 minutes. In Redis when it is configured, so that all
workers count together; else in this process. Accounts that do not exist count like those that do.
"""

from __future__ import annotations

import hashlib
import ipaddress
import time
from collections.abc import Iterator
from functools import cache

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.errors import StorageError
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import MovingWindowRateLimiter

from models.errors import TooManyRequests, Unavailable
from storage.settings import settings

WINDOW_MINUTES = 15
OF_ACCOUNT = RateLimitItemPerMinute(10, WINDOW_MINUTES, namespace="account")
OF_ADDRESS = RateLimitItemPerMinute(100, WINDOW_MINUTES, namespace="address")
MAIL_TO_ACCOUNT = RateLimitItemPerMinute(10, WINDOW_MINUTES, namespace="mail-account")
MAIL_FOR_ADDRESS = RateLimitItemPerMinute(100, WINDOW_MINUTES, namespace="mail-address")


@cache
def _limiter() -> MovingWindowRateLimiter:
    url = settings().redis_url
    if url is None:
        return MovingWindowRateLimiter(MemoryStorage())
    return MovingWindowRateLimiter(
        RedisStorage(
            url, wrap_exceptions=True, key_prefix="booga:sign-in", socket_timeout=2, socket_connect_timeout=2
        )
    )


def network_of(address: str) -> str:
    """What counts as one address: IPv6 is handed out by /64 (RFC 6177), and IPv4 may come dressed as IPv6."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


def _counters(account: str, address: str) -> Iterator[tuple[RateLimitItem, str]]:
    # A digest: the store needs to know nobody's address.
    yield OF_ACCOUNT, hashlib.sha256(account.encode()).hexdigest()
    if address:
        yield OF_ADDRESS, network_of(address)


def _refuse(
    item: RateLimitItem, who: str, why: str = "Too many sign-ins failed. Wait before you try again."
) -> TooManyRequests:
    again = _limiter().get_window_stats(item, who).reset_time - time.time()
    seconds = max(1, min(WINDOW_MINUTES * 60, int(again) + 1))
    return TooManyRequests(why, seconds)


def check(account: str, address: str) -> None:
    """Raise ``TooManyRequests`` when the account or the address has no try left."""
    try:
        for item, who in _counters(account, address):
            if not _limiter().test(item, who):
                raise _refuse(item, who)
    except StorageError as fault:
        raise Unavailable("Sign-ins cannot be counted just now.") from fault


def count_failure(account: str, address: str) -> None:
    """Count a failure; raise ``TooManyRequests`` when tries made meanwhile had reached the limit already."""
    try:
        full = [(item, who) for item, who in _counters(account, address) if not _limiter().hit(item, who)]
        if full:
            raise _refuse(*full[0])
    except StorageError as fault:
        raise Unavailable("Sign-ins cannot be counted just now.") from fault


def count_mail(account: str, address: str) -> None:
    """Count a wish for mail to an account, known or not; raise ``TooManyRequests`` beyond the limit."""
    wishes = [(MAIL_TO_ACCOUNT, hashlib.sha256(account.encode()).hexdigest())]
    if address:
        wishes.append((MAIL_FOR_ADDRESS, network_of(address)))
    try:
        for item, who in wishes:
            if not _limiter().hit(item, who):
                raise _refuse(item, who, "Too much mail was asked for. Wait before you try again.")
    except StorageError as fault:
        raise Unavailable("Mail cannot be asked for just now.") from fault


def is_reachable() -> bool:
    """Whether failures can be counted."""
    try:
        return bool(_limiter().storage.check())
    except StorageError:  # the answer to the question
        return False
