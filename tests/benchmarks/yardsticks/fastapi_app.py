"""A bare FastAPI application over the yardsticks' tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from pydantic import BaseModel

from tests.benchmarks.yardsticks import store

app = FastAPI()


def _database() -> Iterator[store.Session]:
    with store.Sessions() as db:
        yield db


Database = Annotated[store.Session, Depends(_database)]


def _owner(db: Database, x_api_key: Annotated[str | None, Header()] = None) -> store.Key:
    key = store.owner(db, x_api_key)
    if key is None:
        raise HTTPException(401)
    return key


Owner = Annotated[store.Key, Depends(_owner)]


class NewSession(BaseModel):
    """What a session is made of."""

    persona_id: str
    title: str | None = None


@app.get("/sessions")
def page(db: Database, key: Owner, request: Request, page: int = 1, page_size: int = 20) -> dict[str, Any]:
    """A page."""
    return store.page(db, key, page, page_size, str(request.url.replace(query="")))


@app.get("/sessions/{id}")
def get(db: Database, key: Owner, id: str) -> dict[str, Any]:
    """One."""
    row = store.find(db, key, id)
    if row is None:
        raise HTTPException(404)
    return store.show(row)


@app.post("/sessions", status_code=201)
def create(db: Database, key: Owner, body: NewSession) -> dict[str, Any]:
    """A new one."""
    row = store.add(db, key, body.persona_id, body.title)
    if row is None:
        raise HTTPException(422)
    return store.show(row)
