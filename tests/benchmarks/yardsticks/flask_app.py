"""A bare Flask application over the yardsticks' tables."""

from __future__ import annotations

from typing import Any

from flask import Flask, abort, request

from tests.benchmarks.yardsticks import store

app = Flask(__name__)


def _owner(db: store.Session) -> store.Key:
    key = store.owner(db, request.headers.get("X-API-Key"))
    if key is None:
        abort(401)
    return key


@app.get("/sessions")
def page() -> dict[str, Any]:
    """A page."""
    with store.Sessions() as db:
        number, size = request.args.get("page", 1, int), request.args.get("page_size", 20, int)
        return store.page(db, _owner(db), number, size, request.base_url)


@app.get("/sessions/<id>")
def get(id: str) -> dict[str, Any]:
    """One."""
    with store.Sessions() as db:
        row = store.find(db, _owner(db), id)
        if row is None:
            abort(404)
        return store.show(row)


@app.post("/sessions")
def create() -> tuple[dict[str, Any], int]:
    """A new one."""
    with store.Sessions() as db:
        body = request.get_json()
        row = store.add(db, _owner(db), body["persona_id"], body.get("title"))
        if row is None:
            abort(422)
        return store.show(row), 201
