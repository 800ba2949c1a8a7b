"""The canary's tenant: all that the contract lets a tenant write, with the canary's word in its texts."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from typing import Any

from sqlalchemy import select

from models.work import Job, JobStatus
from tests import canary
from tests.contract import conformance
from tests.contract.specimens import NOTE, Operation, Specimens, operation_of, operations
from tests.servers import Server

SPARED = {
    "tenants.update_current": "operators see the tenant's name",
    "erasures.create": "nobody is to be forgotten",
    "people.update": "the owner is to stay",
    "sessions.bulk": "it deletes",
    "webhooks.try_out": "it would send beyond loopback",
    "webhooks.redeliver": "likewise",
    "llm_providers.try_out": "likewise",
    "accounts.change_password": "the example's password is not the owner's",
    "accounts.set_up_mfa": "likewise",
}
"""What the canary leaves alone, and why."""
CHOICES = ("model", "provider")
"""Texts that name something which has to be there."""
SETTLES_WITHIN = 60.0
Way = tuple[Any, ...]


def _texts(value: Any, way: Way = ()) -> Iterator[tuple[Way, str]]:
    if isinstance(value, str):
        yield way, value
    elif isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _texts(inner, (*way, key))


def marked(body: Any, operation: Operation) -> Any:
    """The body with the word in each text where the contract takes it."""
    for way, text in [*_texts(body)]:
        if way[-1] in CHOICES:
            continue
        for candidate in (f"{text} {canary.WORD}", f"{text}-{canary.WORD}", f"{canary.WORD}-{text}"):
            changed = copy.deepcopy(body)
            place = changed
            for key in way[:-1]:
                place = place[key]
            place[way[-1]] = candidate
            if operation.validator.is_valid(changed):
                body = changed
                break
    return body


class Marked(Specimens):
    """Specimens that all hold the word."""

    def _body(self, operation: Operation, example: str | None) -> dict[str, Any]:
        call = super()._body(operation, example)
        if "json" in call:
            call["json"] = marked(call["json"], operation)
        for name, (file_name, content, kind) in call.get("files", {}).items():
            told = content + canary.WORD.encode() if content.startswith(NOTE) else content
            call["files"][name] = (f"{canary.WORD}-{file_name}", told, kind)
        return call


WRITTEN = sorted(
    (
        operation
        for operation in operations()
        if operation.method in ("post", "put", "patch")
        if not (operation.is_public or operation.is_operators or operation.id in SPARED)
    ),
    key=lambda operation: operation.method != "post",
)
"""What the canary does: first what makes something."""


def write_everything(specimens: Specimens) -> None:
    """Every write of a tenant's, once; whether it succeeds is not asked."""
    specimens.the("message")  # before its session is archived
    for operation in WRITTEN:
        specimens.send(operation)


def plant(server: Server) -> None:
    """Have ``server.canary`` write everything, and wait until all its jobs are done."""
    tenant = server.canary
    with canary.singing(), conformance.client(server.url, tenant["api_key"]) as client:
        specimens = Marked(client, tenant)
        write_everything(specimens)
        deadline = time.monotonic() + SETTLES_WITHIN
        while _is_busy(server, tenant["tenant_id"]):
            assert time.monotonic() < deadline, "the canary's jobs did not come to their end"
            time.sleep(0.05)  # the server is at work
        found = specimens.send(operation_of("search.run"))  # so that the server remembers what it looked at
        assert canary.WORD in found.text


def _is_busy(server: Server, tenant_id: str) -> bool:
    waiting = select(Job.id).where(Job.tenant_id == tenant_id, Job.status != JobStatus.DEAD)
    with server.database() as db:
        return db.scalar(waiting.limit(1)) is not None
