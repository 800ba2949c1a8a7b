"""Loaded by Schemathesis: what a user of the tool would arrange, so that it gets past the doors."""

from __future__ import annotations

import os
import uuid
from ipaddress import IPv4Address
from itertools import count
from typing import Any

import schemathesis

STANDING_ON = frozenset(os.environ["BOOGA_TEST_STANDING_ON"].split(","))
"""The tenant, keys and subscriptions that the run needs to its end. Every other one it may destroy."""
VISITOR = {
    "Origin": os.environ["BOOGA_TEST_ORIGIN"],
    "Authorization": f"Bearer {os.environ['BOOGA_TEST_VISITOR_TOKEN']}",
}
_addresses = count(int(IPv4Address("10.0.0.0")))


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, Any]) -> None:
    """Call from an address of its own, as a visitor where visitors call, and spare the branch we sit on."""
    case.headers["X-Forwarded-For"] = str(IPv4Address(next(_addresses)))
    if "Idempotency-Key" in case.headers:
        # A key that is used twice rightly replays an answer whose resource may be gone by now.
        case.headers["Idempotency-Key"] = str(uuid.uuid4())
    if "{public_key}" in case.path:
        case.headers.update(VISITOR)
    if case.meta is not None and case.meta.generation.mode.is_positive and case.query:
        # The contract cannot say that a cursor stands alone, and one that was invented is none of any list's.
        case.query.pop("cursor", None)
    given = case.path_parameters or {}
    # A link that the tool inferred may take its id from a field that is null.
    aims_at_nothing = "id" in given and str(given["id"]) == "None"
    if aims_at_nothing or (case.method != "GET" and given.get("id") in STANDING_ON):
        given["id"] = str(uuid.uuid4())
