"""Every error as one shape: RFC 9457 problem details, with the older fields that clients read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from models import errors
from models.chat.ports import ProviderError

BASE = "https://booga.example/problems/"

TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    409: "Conflict",
    412: "Precondition Failed",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
}

CODES = {
    "validation-failed": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "insufficient-scope": 403,
    "capability-required": 403,
    "feature-disabled": 403,
    "quota-exhausted": 403,
    "origin-not-allowed": 403,
    "not-found": 404,
    "method-not-allowed": 405,
    "not-acceptable": 406,
    "conflict": 409,
    "reply-running": 409,
    "session-expired": 409,
    "idempotency-in-progress": 409,
    "idempotency-key-reused": 422,
    "precondition-failed": 412,
    "payload-too-large": 413,
    "range-not-satisfiable": 416,
    "unsupported-media-type": 415,
    "unprocessable": 422,
    "too-many-requests": 429,
    "internal-error": 500,
    "provider-error": 502,
    "provider-timeout": 502,
    "unavailable": 503,
}
"""Every code and its status; the spec's ``ProblemCode`` lists the same."""

OF_DOMAIN: tuple[tuple[type[errors.DomainError], str], ...] = (
    (errors.NotFound, "not-found"),
    (errors.ReplyRunning, "reply-running"),
    (errors.SessionExpired, "session-expired"),
    (errors.Conflict, "conflict"),
    (errors.Stale, "precondition-failed"),
    (errors.RuleBroken, "unprocessable"),
    (errors.QuotaExhausted, "quota-exhausted"),
    (errors.FeatureDisabled, "feature-disabled"),
    (errors.CapabilityRequired, "capability-required"),
    (errors.Forbidden, "forbidden"),
    (errors.TooLarge, "payload-too-large"),
    (errors.TooManyRequests, "too-many-requests"),
    (errors.Unavailable, "unavailable"),
)
"""What the business says, and what the web calls it: the first that fits."""

Fault = dict[str, str]


class Problem(Exception):
    """A problem to answer with. ``faults`` are ``{"pointer" or "parameter", "detail"}``."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        faults: Sequence[Fault] = (),
        headers: dict[str, str] | None = None,
        meta: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.status = CODES[code]
        self.status_code = self.status  # what Connexion orders security errors by
        self.detail = detail
        self.faults = list(faults)[:100]
        self.headers = dict(headers or {})
        self.meta = dict(meta or {})
        if self.status in (429, 503):
            self.headers.setdefault("Retry-After", "5")
        if self.status == 401:
            self.headers.setdefault("WWW-Authenticate", 'Bearer realm="booga", ApiKey realm="booga"')

    def body(self, instance: str, request_id: str) -> dict[str, Any]:
        """The problem document."""
        return {
            "type": BASE + self.code,
            "title": TITLES[self.status],
            "status": self.status,
            "detail": self.detail[:4000],
            "instance": instance[:2000],
            "errors": self.faults,
            "request_id": request_id,
            "success": False,
            "error": self.code,
            "meta": self.meta,
        }

    def openai_body(self, request_id: str) -> dict[str, Any]:
        """The same in the shape that OpenAI's clients read."""
        kinds = {
            400: "invalid_request_error",
            401: "authentication_error",
            403: "permission_error",
            429: "rate_limit_error",
        }
        kind = kinds.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        fault = next(iter(self.faults), {})
        where = fault.get("parameter") or fault.get("pointer", "").lstrip("/").replace("/", ".") or None
        more = fault.get("detail", "")
        detail = self.detail if more in self.detail else f"{self.detail} ({more})"
        return {
            "error": {"message": detail, "type": kind, "param": where, "code": self.code.replace("-", "_")}
        }


def of(fault: BaseException) -> Problem | None:
    """The problem that stands for ``fault``, or None for what nobody foresaw."""
    if isinstance(fault, Problem):
        return fault
    if not isinstance(fault, errors.DomainError):
        return None
    code = next(code for kind, code in OF_DOMAIN if isinstance(fault, kind))
    place: Fault = {}
    if fault.pointer:
        place = {"pointer": fault.pointer, "detail": fault.detail}
    elif fault.parameter:
        place = {"parameter": fault.parameter, "detail": fault.detail}
    headers = {}
    retry_after = getattr(fault, "retry_after", None)
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    return Problem(code, fault.detail, faults=[place] if place else [], headers=headers)


def of_provider(error: ProviderError, message_id: str | None = None) -> Problem:
    """A provider's fault as a problem: 503 when it asks for patience, else 502."""
    meta: dict[str, Any] = {"provider_error": error.code}
    if message_id is not None:
        meta["message_id"] = message_id
    if error.code == "provider_rate_limited":
        wait = str(max(1, round(error.retry_after or 5)))
        return Problem("unavailable", error.detail, headers={"Retry-After": wait}, meta=meta)
    if error.code == "provider_timeout":
        return Problem("provider-timeout", error.detail, meta=meta)
    return Problem("provider-error", error.detail, meta=meta)


def dumps(document: dict[str, Any]) -> bytes:
    """A problem document as bytes, with what cannot be encoded replaced rather than refused."""
    try:
        return orjson.dumps(document)
    except orjson.JSONEncodeError:
        cleaned = {
            key: value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
            for key, value in document.items()
        }
        return orjson.dumps(cleaned)
