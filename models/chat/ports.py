"""What the chat engine asks of a provider, and what a provider may answer.

A *provider* is a service that writes a reply: a language model behind an OpenAI-compatible server, or the
embedded `extractive` one. Providers are async generators of reply parts; they fail with `ProviderError`,
whose words may be shown to anyone. Nothing here opens a socket: what does lives in `storage.providers`.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from time import monotonic
from typing import Final, Literal, Protocol, runtime_checkable

Role = Literal["system", "user", "assistant"]
TokenSource = Literal["provider", "estimated"]
ErrorCode = Literal[
    "provider_unavailable",  # not reachable, a 5xx, or it hung up before the first text
    "provider_timeout",  # too slow to connect, to begin, or to go on
    "provider_rate_limited",  # 429
    "provider_refused",  # our credentials are not accepted: 401, 403
    "provider_rejected",  # this request is not accepted: unknown model, too long, filtered
    "provider_malformed",  # it answered something that is not a chat completion
    "provider_interrupted",  # the connection ended after text had arrived, before the reply was whole
]

PASSING: Final[frozenset[str]] = frozenset(
    {"provider_unavailable", "provider_timeout", "provider_rate_limited", "provider_interrupted"}
)
"""Faults that may be gone when the same request is sent again later."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the conversation as the provider sees it."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Source:
    """A numbered passage that the provider may cite as `[number]`; numbers count from 1, pages too."""

    number: int
    document_name: str
    page: int | None
    sheet: str | None
    cell: str | None
    heading: str | None
    text: str
    score: float


@dataclass(frozen=True, slots=True)
class Prompt:
    """All that a provider is told in one turn.

    `messages` is the whole conversation with the passages already written into it: a language model reads
    nothing else. `question` and `sources` are the same facts taken apart, for a provider that reads no prose.
    `searched` tells whether documents were searched: no sources then means that none held evidence.
    """

    chat_model: str
    messages: tuple[Message, ...]
    temperature: float | None = None
    max_output_tokens: int | None = None
    question: str = ""
    sources: tuple[Source, ...] = ()
    searched: bool = False


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next piece of the reply, never empty; the pieces joined are the reply, letter for letter."""

    text: str


@dataclass(frozen=True, slots=True)
class UsageReport:
    """Tokens spent on the turn; `source` tells who counted them. Comes at most once, after the last text."""

    prompt_tokens: int
    completion_tokens: int
    source: TokenSource


@dataclass(frozen=True, slots=True)
class Finished:
    """The last part: the reply is whole. `reason`: `stop`, `length` (at the limit), `content_filter`, ..."""

    reason: str


ReplyPart = TextDelta | UsageReport | Finished


class ProviderError(Exception):
    """A provider's fault, in words that hold neither a credential nor a word of the conversation.

    `status` is the HTTP status it answered, if it came so far; `retry_after` the seconds it asked us to wait.
    `retryable` says that the same request may succeed later.
    """

    def __init__(
        self,
        code: ErrorCode,
        detail: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.code: ErrorCode = code
        self.detail = detail
        self.status = status
        self.retry_after = retry_after
        self.retryable = code in PASSING if retryable is None else retryable


class Provider(Protocol):
    """Whoever writes replies. `stream` is an async generator: closing it ends the call at once."""

    @property
    def name(self) -> str:
        """The name the tenant knows it by."""

    def stream(self, prompt: Prompt) -> AsyncGenerator[ReplyPart, None]:
        """Write the reply: text, usage, `Finished`. Raises `ProviderError`, before or after text."""


@runtime_checkable
class Moderator(Protocol):
    """A provider whose server may judge texts, too."""

    async def moderate(self, text: str) -> list[str] | None:
        """What it objects to, by its own names; None where the server judges nothing. Raises
        `ProviderError`.
        """


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs: per million tokens, in whatever currency the tenant counts."""

    input: float
    output: float

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """The cost of so many tokens."""
        return (prompt_tokens * self.input + completion_tokens * self.output) / 1_000_000


@dataclass(frozen=True, slots=True)
class Candidate:
    """A provider in the order of fallback, and the model to ask it for (the prompt's own when None).

    `price` is None where nobody told it, `context_window` (tokens of prompt and answer together) where the
    provider reads no prompt.
    """

    provider: Provider
    chat_model: str | None = None
    price: Price | None = None
    context_window: int | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call of one provider, for the trace. `first_text_ms` is None when no text came.

    `error` is the code of the fault that ended it. With no error and `finished` false, the reader left.
    """

    provider: str
    chat_model: str
    error: ErrorCode | None
    status: int | None
    first_text_ms: float | None
    ms: float
    finished: bool
    price: Price | None = None


async def stream_with_fallback(
    candidates: Sequence[Candidate], prompt: Prompt, on_attempt: Callable[[Attempt], None]
) -> AsyncGenerator[ReplyPart, None]:
    """The reply of the first candidate that begins one.

    The next is asked only while nothing has arrived: half a reply of one is never continued by another.
    `on_attempt` hears of each call once, when it ends, also when the reader leaves. Raises the last
    candidate's `ProviderError`, or that of a stream which broke after it began.
    """
    failure = ProviderError("provider_unavailable", "No provider is configured for this chat model.")
    for candidate in candidates:
        chat_model = candidate.chat_model or prompt.chat_model
        began, first_text, finished = monotonic(), None, False
        fault: ProviderError | None = None
        parts = candidate.provider.stream(replace(prompt, chat_model=chat_model))
        try:
            async with aclosing(parts):
                async for part in parts:
                    if first_text is None:
                        first_text = monotonic()
                    finished = finished or isinstance(part, Finished)
                    yield part
        except ProviderError as error:
            fault = error
        finally:
            ended = monotonic()
            on_attempt(
                Attempt(
                    provider=candidate.provider.name,
                    chat_model=chat_model,
                    error=fault.code if fault else None,
                    status=fault.status if fault else None,
                    first_text_ms=None if first_text is None else (first_text - began) * 1000,
                    ms=(ended - began) * 1000,
                    finished=finished,
                    price=candidate.price,
                )
            )
        if fault is None:
            return
        failure = fault
        if first_text is not None:
            break
    raise failure


def estimate_tokens(text: str) -> int:
    """About how many tokens `text` is, without a tokenizer: a quarter of its UTF-8 bytes, and digits twice.

    English prose comes out near 4 letters a token and Chinese near 0.75 a character; byte-pair vocabularies
    cut figures into groups of at most three digits with the separators on their own, hence the surcharge.
    An estimate for budgets and for servers that report nothing, never a bill.
    """
    digits = sum(map(text.count, "0123456789"))
    return -(-(len(text.encode("utf-8", "replace")) + digits) // 4)


MESSAGE_OVERHEAD: Final = 4
"""Tokens that the chat format itself spends around each message, about."""


def estimate_prompt_tokens(prompt: Prompt) -> int:
    """About what the prompt will cost, for reserving a budget before the provider is called."""
    return sum(estimate_tokens(message.content) + MESSAGE_OVERHEAD for message in prompt.messages)


def estimated_usage(prompt: Prompt, reply: str) -> UsageReport:
    """Usage of a reply that nobody counted: the server reports none, or the stream was cut or stopped."""
    return UsageReport(estimate_prompt_tokens(prompt), estimate_tokens(reply), "estimated")
