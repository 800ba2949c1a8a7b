"""The outermost layer: one exchange per request, every failure a problem, no body larger than its operation
takes.

It names the request, turns whatever is raised further in into one problem document, and drains what a
client still sends after it was refused, so that the client reads the answer instead of a broken connection.
"""

from __future__ import annotations

import re
import time
from urllib.parse import unquote_to_bytes

import structlog
from connexion.exceptions import ProblemException
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils import uuid7

from handlers import problems
from handlers.problems import Problem
from models.access import Caller
from models.audit import is_kept_when_refused
from models.errors import DomainError
from openapi import exchange as exchanges
from openapi.exchange import Exchange
from openapi.sending import send_problem
from storage import audit, files, metrics
from storage.threads import in_thread

log = structlog.get_logger("booga.request")

DRAIN_BYTES = 256 * 1024 * 1024
DRAIN_SECONDS = 10.0
_ID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")


def header(scope: Scope, name: bytes) -> list[bytes]:
    """All values of a header, in order."""
    return [value for key, value in scope["headers"] if key == name]


def _exchange(scope: Scope) -> Exchange:
    given = header(scope, b"x-request-id")
    usable = len(given) == 1 and _REQUEST_ID.fullmatch(given[0])
    request_id = given[0].decode() if usable else uuid7().hex
    client = scope.get("client")
    agents = header(scope, b"user-agent")
    return Exchange(
        request_id=request_id,
        method=scope["method"],
        path=scope["path"],
        client=client[0] if client else "",
        user_agent=agents[0][:300].decode("latin-1").replace("\0", "") if agents else "",
    )


class _Line:
    """The connection under a request: how far its body came, and what was answered."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self.status = 0
        self.ended = False

    async def receive(self) -> Message:
        """The next message from the client."""
        message = await self._receive()
        self.ended = message["type"] == "http.disconnect" or not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """A message to the client."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)

    async def drain(self) -> None:
        """Read and forget the rest of a refused body, within bounds (RFC 9112, 9.6: lingering close)."""
        deadline, left = time.monotonic() + DRAIN_SECONDS, DRAIN_BYTES
        while not self.ended and left > 0 and time.monotonic() < deadline:
            left -= len((await self.receive()).get("body", b""))


class Guard:
    """ASGI middleware around everything else."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever happens."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1000})
                return
            await self.app(scope, receive, send)
            return
        exchange = scope[exchanges.KEY] = _exchange(scope)
        line = _Line(receive, send)
        structlog.contextvars.bind_contextvars(request_id=exchange.request_id)
        try:
            _check_target(scope)
            await self.app(scope, line.receive, line.send)
        except Exception as fault:  # the one place where every failure becomes an answer
            problem = problem_of(fault, exchange)
            if line.status:
                raise
            if problem.status == 403 and exchange.caller is not None:
                await _note_refusal(exchange, exchange.caller)
            await send_problem(line.send, exchange, problem)
        finally:
            self._record(exchange, line.status)
            structlog.contextvars.unbind_contextvars("request_id")
        if _has_body(scope):
            await line.drain()

    def _record(self, exchange: Exchange, status: int) -> None:
        operation = exchange.operation.id if exchange.operation else "none"
        seconds = time.perf_counter() - exchange.began
        metrics.REQUESTS.labels(operation, exchange.method if operation != "none" else "any", status).inc()
        metrics.LATENCY.labels(operation).observe(seconds)
        caller = exchange.caller
        log.info(
            "request",
            method=exchange.method[:20],
            path=exchange.path[:500],
            operation=operation,
            status=status,
            ms=round(seconds * 1000, 1),
            tenant=caller.tenant_id if caller else None,
            caller=caller.identity if caller else None,
        )


async def _note_refusal(exchange: Exchange, caller: Caller) -> None:
    """A change that rights, capabilities or rules refused stands in the audit log, and so does a look into
    what is for administrators alone.
    """
    operation = exchange.operation
    if operation is None or not is_kept_when_refused(operation.scope):
        return
    audit.bind(caller, address=exchange.client, request_id=exchange.request_id, operation=operation.id)
    area = (operation.scope or "").partition(":")[0]
    try:
        await in_thread(audit.refused, caller, area, _named(exchange))
    except (SQLAlchemyError, DomainError) as fault:  # the refusal itself stands, whatever the database says
        log.error("refusal not written", operation=operation.id, fault=type(fault).__name__)


def _named(exchange: Exchange) -> str | None:
    """The id in the path, where it is one: nothing was validated yet."""
    id = exchange.path_values.get("id", "")
    return id.lower() if _ID.fullmatch(id) else None


def _check_target(scope: Scope) -> None:
    raw = scope.get("raw_path") or scope["path"].encode("utf-8", "surrogatepass")
    try:
        text = unquote_to_bytes(raw).decode("utf-8")
        query = unquote_to_bytes(scope["query_string"].replace(b"+", b" ")).decode("utf-8")
    except UnicodeDecodeError as fault:
        raise Problem("validation-failed", "The URL is not UTF-8.") from fault
    if "\0" in text or "\0" in query:
        raise Problem("validation-failed", "The URL holds a NUL character.")
    if len(raw) + len(scope["query_string"]) > 16_384:
        raise Problem("validation-failed", "The URL is longer than 16384 bytes.")


def problem_of(fault: Exception, exchange: Exchange) -> Problem:
    """The problem to answer with; the unforeseen is logged with its traceback and told as 500."""
    if files.is_full(fault):
        log.error("disk full", operation=exchange.operation.id if exchange.operation else None)
        fault = files.DiskFull()
    known = problems.of(fault)
    if known is not None:
        return known
    if isinstance(fault, HTTPException | ProblemException):
        status = fault.status_code if isinstance(fault, HTTPException) else fault.status
        detail = fault.detail if isinstance(fault.detail, str) else ""
        by_status = {
            401: "unauthorized",
            403: "forbidden",
            404: "not-found",
            405: "method-not-allowed",
            413: "payload-too-large",
        }
        if status in by_status:
            return Problem(
                by_status[status],
                detail or "There is no such resource.",
                headers=dict(getattr(fault, "headers", None) or {}),
            )
        if status < 500:
            return Problem("validation-failed", detail or "The request is not valid.")
    if isinstance(fault, IntegrityError):
        log.warning("written at the same time", exc_info=fault)
        return Problem("conflict", "Something that this needs was changed at the same time.")
    if isinstance(fault, OperationalError | PoolTimeout):
        log.error(
            "database unavailable",
            operation=exchange.operation.id if exchange.operation else None,
            exc_info=fault,
        )
        return Problem("unavailable", "The database does not answer.")
    if isinstance(fault, DBAPIError):
        log.error(
            "database refused",
            operation=exchange.operation.id if exchange.operation else None,
            exc_info=fault,
        )
        return Problem("internal-error", "The server failed to answer.")
    log.error("unforeseen", operation=exchange.operation.id if exchange.operation else None, exc_info=fault)
    return Problem("internal-error", "The server failed to answer.")


def _has_body(scope: Scope) -> bool:
    lengths = header(scope, b"content-length")
    return bool(header(scope, b"transfer-encoding")) or (bool(lengths) and lengths[0] != b"0")
