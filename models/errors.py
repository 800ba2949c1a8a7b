"""What can go wrong, in the words of the business. The web layer maps each to a problem in one table."""

from __future__ import annotations


class DomainError(Exception):
    """A rule said no. ``detail`` is for the person who asked; ``pointer`` names the field at fault."""

    def __init__(self, detail: str, *, pointer: str | None = None, parameter: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.pointer = pointer
        self.parameter = parameter


class NotFound(DomainError):
    """No such thing in this tenant; another tenant's thing is told the same way."""

    def __init__(self, detail: str = "There is no such resource.", **where: str | None) -> None:
        super().__init__(detail, **where)


class Conflict(DomainError):
    """The request is well formed but the present state forbids it."""


class ReplyRunning(Conflict):
    """A session answers one question at a time."""


class SessionExpired(Conflict):
    """The session was idle for too long; setting its status to ``active`` revives it."""


class Stale(DomainError):
    """``If-Match`` names a version that is no longer the present one."""


class RuleBroken(DomainError):
    """Well formed, but a rule of the business refuses the content (422)."""


class Forbidden(DomainError):
    """The caller may not do this, whatever its scopes."""


class FeatureDisabled(Forbidden):
    """Switched off by the persona or the configuration."""


class CapabilityRequired(Forbidden):
    """No active subscription grants what this needs."""


class QuotaExhausted(Forbidden):
    """The tenant has as much as it may have."""


class TooLarge(DomainError):
    """More bytes than allowed."""


class Unavailable(DomainError):
    """A part that this needs is not there just now; trying again later may help."""

    retry_after = 5


class TooManyRequests(DomainError):
    """A limit is reached; ``retry_after`` is in seconds."""

    def __init__(self, detail: str, retry_after: int) -> None:
        super().__init__(detail)
        self.retry_after = retry_after
