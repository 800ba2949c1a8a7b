"""What a handler may know of the request beside its arguments. The binding passes these by name."""

from __future__ import annotations

from typing import Any, Protocol

from handlers.visits import Visit
from storage.database import Session


class Operation(Protocol):
    """The operation that is being served."""

    @property
    def spec(self) -> dict[str, Any]:
        """What the contract says of it, with references in place."""


class Exchange(Protocol):
    """The request being answered; a handler with an argument ``exchange`` is given it."""

    @property
    def operation(self) -> Operation | None:
        """The operation, once the request was routed."""

    @property
    def path(self) -> str:
        """The path that was asked for."""

    @property
    def media_type(self) -> str:
        """The type that is to be answered, as negotiated."""

    @property
    def client(self) -> str:
        """The address of the client (of the first one that no trusted proxy vouches for)."""

    @property
    def visit(self) -> Visit | None:
        """Whom a bot's visitor is talking to."""

    @property
    def user_agent(self) -> str:
        """How the client names itself, at most 300 characters."""


class Replay(Protocol):
    """The caller's ``Idempotency-Key``, for an ``async`` handler with an argument ``replay`` (None without).

    Plain handlers need none: the binding answers repeated requests for them.
    """

    def answered(self, db: Session) -> tuple[bytes | None, int, dict[str, str]] | None:
        """The first answer, if there was one."""

    def message_id(self, db: Session) -> str | None:
        """The reply that this key began, if it began one."""

    def keep(
        self,
        db: Session,
        status: int | None,
        headers: dict[str, Any],
        body: bytes,
        message_id: str | None = None,
    ) -> None:
        """Remember the answer, or the reply's id, in the transaction of the work itself."""
