"""Persona, session, message, history, feedback, delete: by the clients that ``make clients`` generates."""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.relay import relay
from tests.servers import Server

pytestmark = pytest.mark.clients

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build"
HERE = Path(__file__).parent


def test_typescript_under_strict(server: Server, tmp_path: Path) -> None:
    for source in (BUILD / "client.d.ts", HERE / "walk.ts"):
        shutil.copy(source, tmp_path)
    strict = ("--strict", "--target", "es2022", "--module", "es2022", "--lib", "es2022,dom")
    with relay(server.url) as door:
        environment = {**os.environ, "BOOGA": door.url, "BOOGA_KEY": server.api_key}
        for command in (
            [
                "npx",
                "--no-install",
                "tsc",
                *strict,
                "--moduleResolution",
                "bundler",
                str(tmp_path / "walk.ts"),
            ],
            ["node", str(tmp_path / "walk.js")],
        ):
            done = subprocess.run(  # noqa: S603 - our own arguments
                command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100
            )
            assert done.returncode == 0, done.stdout + done.stderr


def test_python(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BUILD))
    models = import_module("client.models")

    def call(operation: str, *arguments: Any, **fields: Any) -> Any:
        return import_module(f"client.api.{operation}").sync_detailed(*arguments, client=client, **fields)

    made = import_module("client").AuthenticatedClient(
        base_url=server.url, token=server.api_key, prefix="", auth_header_name="X-API-Key"
    )
    with made as client:
        stack_id = call("personas.personas_list").parsed.results[0].stack_id
        wanted = models.PersonaCreate(name="Python's", stack_id=stack_id)
        persona = call("personas.personas_create", body=wanted).parsed
        begin = models.SessionCreate(persona_id=persona.id)
        session = call("sessions.sessions_create", body=begin).parsed
        question = models.MessageCreate(content="What was revenue in 2025?")
        reply = call("sessions.messages_send", session.id, body=question).parsed
        assert isinstance(reply.id, UUID)
        assert reply.status == "complete"
        history = call("sessions.sessions_history", session.id).parsed
        assert [message.role for message in history.messages] == ["user", "assistant"]
        assert history.messages[1].id == reply.id
        rated = models.FeedbackInput.from_dict({"rating": "helpful"})
        assert call("sessions.messages_rate", session.id, reply.id, body=rated).status_code == 200
        told = call("sessions.sessions_history", session.id).parsed.messages[1].feedback
        assert told.rating == "helpful"
        assert call("sessions.sessions_delete", session.id).status_code == 204
        assert call("sessions.sessions_get", session.id).status_code == 404
        assert call("personas.personas_delete", persona.id).status_code == 204
