"""Loaded by Schemathesis: keeps it from sawing off the branch that it sits on."""

from __future__ import annotations

import os
import uuid
from typing import Any

import schemathesis

STANDING_ON = frozenset(os.environ["BOOGA_TEST_STANDING_ON"].split(","))
"""The tenant, the keys and the subscriptions that the run needs to its end. Every other one it may destroy."""


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, Any]) -> None:
    """Aim what would change one of them at nothing instead."""
    if case.method != "GET" and case.path_parameters and case.path_parameters.get("id") in STANDING_ON:
        case.path_parameters["id"] = str(uuid.uuid4())
