"""What goes wrong with a call, in our own words, and when it is worth repeating."""

from __future__ import annotations

import random
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from time import time
from typing import Final

import aiohttp
import httpx2
from openai import APIStatusError, APITimeoutError, OpenAIError

from models.chat.ports import ErrorCode, ProviderError

RETRIES: Final = 2
LONGEST_WAIT: Final = 5.0
"""Seconds: a provider that asks for more is given up, so that a fallback may answer instead."""

FAULTS = (ProviderError, OpenAIError, httpx2.HTTPError, httpx2.StreamError, aiohttp.ClientError, OSError)
"""All that a call may raise, `TimeoutError` (an `OSError`) and TLS errors among them."""


class NotAllowed(OSError):
    """A tenant's provider is not to be asked at this address."""


class Rejected(ProviderError):
    """A 400 or 422 whose words name a parameter that the call can do without: `parameter`."""

    parameter: str


def explained(error: BaseException, *, late: bool, begun: bool) -> ProviderError:
    """The fault in our own words: the server's may quote the prompt, or the key."""
    if isinstance(error, ProviderError):
        return error
    if isinstance(error, APIStatusError):
        return _status_fault(error)
    if any(isinstance(cause, NotAllowed) for cause in _causes(error)):
        return ProviderError(
            "provider_unavailable", "The provider's address is not one that may be asked.", retryable=False
        )
    if late or _is_timeout(error):
        return ProviderError("provider_timeout", "The provider took too long.")
    if begun:
        return ProviderError("provider_interrupted", "The connection to the provider broke half way.")
    return ProviderError("provider_unavailable", "The provider cannot be reached.")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _is_timeout(error: BaseException) -> bool:
    """The transport calls a lost connection a timeout too; aiohttp's own error, its cause, knows better."""
    for cause in _causes(error):
        if isinstance(cause, aiohttp.ClientError):
            return isinstance(cause, TimeoutError)
    return isinstance(error, TimeoutError | APITimeoutError | httpx2.TimeoutException)


def _status_fault(error: APIStatusError) -> ProviderError:
    status = error.status_code
    if status < 400:
        return ProviderError(
            "provider_malformed", "The provider redirects elsewhere, which is not followed.", status=status
        )
    known = _known(error.code) or _known(error.type)
    unknown = _unknown_parameter(str(error.body), known) if status in (400, 422) else None
    fault = (Rejected if unknown else ProviderError)(
        _code_of(status),
        f"The provider answered {status}{f' ({known})' if known else ''}.",
        status=status,
        retry_after=retry_after(error.response.headers),
        # A spent quota answers 429 as well, and stays spent.
        retryable=False if known == "insufficient_quota" else None,
    )
    if isinstance(fault, Rejected) and unknown:
        fault.parameter = unknown
    return fault


def _unknown_parameter(told: str, known: str | None) -> str | None:
    """Which of the parameters that can be left out the server does not know, as far as its words tell."""
    if "stream_options" in told:
        return "stream_options"
    # Without such a code it may as well be the value that is refused.
    return "max_tokens" if "max_tokens" in told and known in _NOT_KNOWN else None


def _code_of(status: int) -> ErrorCode:
    if status in (401, 403):
        return "provider_refused"
    if status == 429:
        return "provider_rate_limited"
    if status in (408, 504):
        return "provider_timeout"
    return "provider_rejected" if status < 500 else "provider_unavailable"


_KNOWN: Final = frozenset(
    {
        "billing_hard_limit_reached",
        "content_filter",
        "content_policy_violation",
        "context_length_exceeded",
        "insufficient_quota",
        "invalid_api_key",
        "invalid_request_error",
        "invalid_value",
        "model_not_found",
        "not_found_error",
        "overloaded_error",
        "rate_limit_exceeded",
        "server_error",
        "string_above_max_length",
        "tokens_limit_reached",
        "unknown_parameter",
        "unsupported_parameter",
        "unsupported_value",
    }
)
"""Codes that OpenAI and its kin are known to send, which may be repeated as they are."""
_NOT_KNOWN: Final = frozenset({"unknown_parameter", "unsupported_parameter"})


def _known(code: object) -> str | None:
    return code if isinstance(code, str) and code in _KNOWN else None


def reported(error: object) -> ProviderError:
    """The fault of an error object in an answer whose status was 200."""
    fields = error if isinstance(error, dict) else {}
    words = [_known(fields.get("code")), _known(fields.get("type"))]
    known = next((word for word in words if word), None)
    status = next((fields[key] for key in ("status", "code") if type(fields.get(key)) is int), 0)
    code: ErrorCode = "provider_unavailable"
    if 400 <= status < 600:
        code = _code_of(status)
    elif known and known.startswith(("rate_limit", "insufficient")):
        code = "provider_rate_limited"
    elif known and known not in ("server_error", "overloaded_error"):
        code = "provider_rejected"
    detail = f"The provider reported an error{f' ({known})' if known else ''} in place of a reply."
    return ProviderError(code, detail, retryable=False if known == "insufficient_quota" else None)


def without_text(finish: str | None) -> ProviderError:
    if finish == "content_filter":
        return ProviderError("provider_rejected", "The provider's content filter withheld the reply.")
    if finish == "length":
        return ProviderError("provider_rejected", "The limit of output tokens was spent before any text.")
    return ProviderError("provider_malformed", "The provider's reply is empty.")


def retry_after(headers: httpx2.Headers) -> float | None:
    """Seconds that the server asks us to wait: a number, or a date (RFC 9110, section 10.2.3)."""
    value = headers.get("retry-after", "")
    try:
        seconds = float(value) if value[:1].isdigit() else parsedate_to_datetime(value).timestamp() - time()
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), 86_400.0)


def wait_before_retry(fault: ProviderError, tries: int) -> float | None:
    """Seconds until the call is worth repeating, None when it is not.

    A call that timed out has had its time, and is not given it thrice over.
    """
    if tries >= RETRIES or not fault.retryable or fault.code == "provider_timeout":
        return None
    wait = max(0.25 * 2**tries, fault.retry_after or 0.0)
    jitter = random.uniform(0.8, 1.2)  # noqa: S311  # spreads callers, guards nothing
    return wait * jitter if wait <= LONGEST_WAIT else None
