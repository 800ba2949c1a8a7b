"""The public bot service: which page may ask, with which token, and how much in a day."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from models.audit import AuditEntry
from models.base import now
from models.bots import Bot, BotDay, BotReservation, new_public_key
from models.chat.analytics import border
from models.chat.conversations import ChatMessage, ChatSession
from models.tenancy import Subscription
from storage import visitors
from tests import events
from tests.fakes.provider import FakeProvider
from tests.servers import Server

BOTS, PERSONAS = "/api/v1/chat/bots", "/api/v1/chat/personas"
CONFIGURATIONS = "/api/v1/chat/configurations"
ORIGIN = "https://www.tarnwick.example"
CORS = "access-control-allow-origin"
Make = Callable[..., dict[str, Any]]


@pytest.fixture
def persona_id(client: httpx.Client) -> str:
    """The persona that every tenant begins with."""
    return str(client.get(PERSONAS).json()["results"][0]["id"])


@pytest.fixture
def make(client: httpx.Client, persona_id: str) -> Make:
    """Makes bots on one site."""

    def made(**fields: Any) -> dict[str, Any]:
        body = {"name": "Desk", "persona_id": persona_id, "allowed_origins": [ORIGIN], **fields}
        response = client.post(BOTS, json={"rate_limit_per_minute": 1000, **body})
        assert response.status_code == 201, response.text
        shown: dict[str, Any] = response.json()
        return shown

    return made


class Visitor:
    """Somebody on a page of the site."""

    def __init__(self, http: httpx.Client, bot: dict[str, Any], origin: str | None = ORIGIN) -> None:
        self.http, self.at = http, f"/api/v1/embed/{bot['public_key']}"
        self.headers = {"Origin": origin} if origin else {}
        begun = self.post("/sessions")
        assert begun.status_code == 201, begun.text
        self.session, self.token = begun.json()["session_id"], begun.json()["visitor_token"]
        assert begun.json()["expires_in"] == 900
        self.headers["Authorization"] = f"Bearer {self.token}"

    def post(self, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """POST under the bot's address."""
        given = {"json": body} if body is not None else {}
        return self.http.post(self.at + path, headers={**self.headers, **headers}, **given)

    def get(self, path: str, **headers: str) -> httpx.Response:
        """GET under the bot's address."""
        return self.http.get(self.at + path, headers={**self.headers, **headers})

    def ask(self, content: str = "What was revenue?") -> httpx.Response:
        """A question, and its whole reply."""
        return self.post(f"/sessions/{self.session}/messages", {"content": content})


@pytest.fixture
def visit(anonymous: httpx.Client) -> Callable[[dict[str, Any]], Visitor]:
    """A visitor of a bot."""
    return lambda bot: Visitor(anonymous, bot)


Visit = Callable[[dict[str, Any]], Visitor]


class TestConversation:
    def test_asks_and_reads(self, make: Make, visit: Visit, client: httpx.Client, server: Server) -> None:
        bot = make(greeting="Hello.")
        visitor = visit(bot)
        assert visitor.get("/config").json()["greeting"] == "Hello."
        reply = visitor.ask()
        assert reply.status_code == 201, reply.text
        assert reply.json()["session_id"] == visitor.session
        assert "model" not in reply.json()
        shown = visitor.get(f"/sessions/{visitor.session}/messages").json()
        assert [message["role"] for message in shown["results"]] == ["user", "assistant"]
        assert shown["results"][1] == reply.json()
        session = client.get(f"/api/v1/chat/sessions/{visitor.session}").json()
        assert (session["bot_id"], session["user_id"]) == (bot["id"], None)

    @pytest.mark.parametrize("path", ["messages/stream", "stream"])
    def test_streams_and_resumes(self, path: str, make: Make, visit: Visit) -> None:
        visitor = visit(make())
        at = f"/sessions/{visitor.session}/{path}"
        told = [*events.events(visitor.post(at, {"content": "What was revenue?"}).text.splitlines())]
        assert [event.name for event in told][0 :: len(told) - 1] == ["message.created", "message.completed"]
        assert (
            told[-1].data.keys()
            == visitor.get(f"/sessions/{visitor.session}/messages").json()["results"][1].keys()
        )
        again = [*events.events(visitor.get(at, **{"Last-Event-ID": told[1].id}).text.splitlines())]
        assert [event.id for event in again][-1] == told[-1].id
        assert told[1].id not in [event.id for event in again]

    def test_says_if_it_helped(self, make: Make, visit: Visit, anonymous: httpx.Client) -> None:
        for collects, status in ((True, 200), (False, 403)):
            visitor = visit(make(collect_feedback=collects))
            reply = visitor.ask().json()
            at = f"{visitor.at}/sessions/{visitor.session}/messages/{reply['id']}/feedback"
            answer = anonymous.put(at, headers=visitor.headers, json={"rating": "helpful"})
            assert answer.status_code == status
        assert answer.json()["error"] == "feature-disabled"

    def test_the_same_visitor_goes_on_or_begins_anew(self, make: Make, visit: Visit) -> None:
        visitor = visit(make())
        on = visitor.post("/sessions")
        assert (on.status_code, on.json()["session_id"]) == (200, visitor.session)
        anew = visitor.post("/sessions", {"restart": True})
        assert anew.status_code == 201
        assert anew.json()["session_id"] != visitor.session


class TestFigures:
    def test_sessions_and_sums_are_what_was_sent(
        self, make: Make, visit: Visit, client: httpx.Client, anonymous: httpx.Client, other: httpx.Client
    ) -> None:
        bot, silent = make(), make()
        first, second = visit(bot), visit(bot)
        replies = [first.ask("What was  REVENUE?"), first.ask("Who audits?"), second.ask("What was revenue")]
        rated = replies[0].json()["id"]
        judged = anonymous.put(
            f"{first.at}/sessions/{first.session}/messages/{rated}/feedback",
            headers=first.headers,
            json={"rating": "helpful"},
        )
        assert judged.status_code == 200, judged.text
        unanswered = sum(reply.json()["answer_status"] == "insufficient_evidence" for reply in replies)

        at = f"{BOTS}/{bot['id']}"
        listed = client.get(f"{at}/sessions").json()
        assert [row["id"] for row in listed["results"]] == [second.session, first.session]
        assert {(row["bot_id"], row["user_id"]) for row in listed["results"]} == {(bot["id"], None)}
        found = client.get(f"{at}/sessions", params={"search": "audits"}).json()
        assert [row["id"] for row in found["results"]] == [first.session]
        (oldest,) = client.get(f"{at}/sessions", params={"ordering": "created_at", "page_size": 1}).json()[
            "results"
        ]
        assert oldest["id"] == first.session
        rows = [*csv.DictReader(io.StringIO(client.get(f"{at}/sessions.csv").text))]
        assert [row["id"] for row in rows] == [second.session, first.session]

        for interval in ("hour", "day", "week"):
            span = {"from": (now() - timedelta(days=9)).isoformat(), "interval": interval}
            report = client.get(f"{at}/analytics", params=span).json()
            totals, series = report["totals"], report["series"]
            expected = {"sessions": 2, "questions": 3, "replies": 3, "messages": 6, "helpful": 1}
            expected |= {"unhelpful": 0, "unanswered": unanswered, "failed": 0}
            assert {name: totals[name] for name in expected} == expected
            assert {name: sum(row[name] for row in series) for name in expected} == expected
            assert totals["visitors"] == 2
            assert max(row["visitors"] for row in series) in (1, 2)
            assert sum(row["visitors"] for row in series) >= 2
            assert totals["p95_latency_ms"] >= totals["p50_latency_ms"] > 0
            assert series[0]["visitors"] == series[0]["messages"] == 0
            assert series[0]["p50_latency_ms"] is None
            assert report["top_questions"] == [
                {"question": "What was revenue", "times": 2},
                {"question": "Who audits?", "times": 1},
            ]
            rows = [*csv.DictReader(io.StringIO(client.get(f"{at}/analytics.csv", params=span).text))]
            assert [int(row["visitors"]) for row in rows] == [row["visitors"] for row in series]

        nothing = client.get(f"{BOTS}/{silent['id']}/analytics").json()
        assert (nothing["totals"]["messages"], nothing["totals"]["visitors"]) == (0, 0)
        assert nothing["top_questions"] == []
        assert client.get(f"{BOTS}/{silent['id']}/sessions").json()["count"] == 0
        for path in ("sessions", "analytics"):
            assert other.get(f"{at}/{path}").status_code == 404

    def test_a_question_that_was_filtered_is_no_top_question(
        self, make: Make, visit: Visit, client: httpx.Client
    ) -> None:
        bot = make()
        for left in client.get(CONFIGURATIONS).json()["results"]:
            client.delete(f"{CONFIGURATIONS}/{left['id']}")
        body = {"enable_content_filtering": True, "content_filter_level": "low"}
        filtering = client.post(CONFIGURATIONS, json=body)
        assert filtering.status_code == 201, filtering.text
        try:
            visitor = visit(bot)
            assert visitor.ask("Is 4111 1111 1111 1111 your card?").json()["status"] == "filtered"
            assert visitor.ask("Who audits?").json()["status"] == "complete"
        finally:
            client.delete(f"{CONFIGURATIONS}/{filtering.json()['id']}")
        report = client.get(f"{BOTS}/{bot['id']}/analytics").json()
        assert report["top_questions"] == [{"question": "Who audits?", "times": 1}]

    def test_what_cannot_be_answered_is_refused(self, make: Make, client: httpx.Client) -> None:
        query = {"from": "2020-03-04T00:00:00Z", "to": "2026-03-04T00:00:00Z", "interval": "hour"}
        assert client.get(f"{BOTS}/{make()['id']}/analytics", params=query).status_code == 422

    @pytest.mark.parametrize("interval", ["hour", "day", "week"])
    def test_a_visitor_stands_in_the_interval_of_the_question(
        self, interval: str, make: Make, visit: Visit, client: httpx.Client, server: Server
    ) -> None:
        bot = make()
        visitor = visit(bot)
        asked = visitor.ask().json()["parent_id"]
        monday = datetime(2026, 3, 2, tzinfo=UTC)
        borders = [monday, monday + timedelta(days=7) - timedelta(microseconds=1), monday + timedelta(days=7)]
        query = {
            "from": monday.isoformat(),
            "to": (monday + timedelta(days=8)).isoformat(),
            "interval": interval,
        }
        for at in borders:
            with server.database() as db:
                db.get_one(ChatMessage, asked).created_at = at
            series = client.get(f"{BOTS}/{bot['id']}/analytics", params=query).json()["series"]
            (start,) = [row["start"] for row in series if row["visitors"]]
            assert datetime.fromisoformat(start) == border(at, interval)


class TestOrigins:
    @pytest.mark.parametrize(
        "origin",
        [
            None,
            "null",
            "https://evil.example",
            "http://www.tarnwick.example",
            "https://www.tarnwick.example:8443",
            "https://tarnwick.example",
            "https://www.tarnwick.example.evil.example",
            "https://WWW.tarnwick.example",
            "https://www.tarnwick.example/",
        ],
    )
    def test_no_other_page_may_ask(
        self, origin: str | None, make: Make, visit: Visit, anonymous: httpx.Client
    ) -> None:
        visitor = visit(make())
        headers = {"Origin": origin} if origin else {}
        calls: list[tuple[str, str, dict[str, Any]]] = [("GET", "/config", {}), ("POST", "/sessions", {})]
        token = {"Authorization": f"Bearer {visitor.token}"}
        calls.append(("POST", f"/sessions/{visitor.session}/messages", {"json": {"content": "Hi"}}))
        for method, path, given in calls:
            sent = headers | (token if "{" not in path and method == "POST" else {})
            refused = anonymous.request(method, visitor.at + path, headers=sent, **given)
            assert (refused.status_code, refused.json()["error"]) == (403, "origin-not-allowed")
            assert CORS not in refused.headers
            assert refused.headers["vary"] == "Origin"
        read = anonymous.get(f"{visitor.at}/sessions/{visitor.session}/messages", headers=headers | token)
        assert read.status_code == 200
        assert CORS not in read.headers

    def test_the_allowed_one_reads_answers_and_problems(self, make: Make, visit: Visit) -> None:
        visitor = visit(make())
        wrong = visitor.post(f"/sessions/{visitor.session}/messages", {"surprise": 1})
        assert wrong.status_code == 400
        for answer in (visitor.get("/config"), wrong):
            assert answer.headers[CORS] == ORIGIN
            assert answer.headers["vary"] == "Origin"
            assert "access-control-allow-credentials" not in answer.headers

    @pytest.mark.parametrize(("origin", "allowed"), [(ORIGIN, True), ("https://evil.example", False)])
    def test_preflight(self, origin: str, allowed: bool, make: Make, anonymous: httpx.Client) -> None:
        at = f"/api/v1/embed/{make()['public_key']}/sessions"
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        answer = anonymous.options(at, headers=asked)
        assert (answer.status_code, answer.headers["allow"]) == (204, "POST, OPTIONS")
        assert answer.headers.get(CORS) == (origin if allowed else None)
        assert ("authorization" in answer.headers.get("access-control-allow-headers", "").lower()) == allowed

    def test_none_allowed_means_nobody(self, make: Make, anonymous: httpx.Client) -> None:
        at = f"/api/v1/embed/{make(allowed_origins=[])['public_key']}/config"
        assert anonymous.get(at, headers={"Origin": ORIGIN}).status_code == 403

    def test_paused_and_unknown_are_the_same(
        self, make: Make, client: httpx.Client, anonymous: httpx.Client
    ) -> None:
        bot = make()
        client.post(f"{BOTS}/{bot['id']}/toggle-active")
        told = []
        for key in (bot["public_key"], new_public_key()):
            answer = anonymous.get(f"/api/v1/embed/{key}/config", headers={"Origin": ORIGIN})
            body = {k: v for k, v in answer.json().items() if k not in ("instance", "request_id")}
            told.append((answer.status_code, body, sorted(answer.headers)))
        assert told[0] == told[1]
        assert told[0][0] == 404


class TestTokens:
    def test_is_needed_and_for_one_conversation(
        self, make: Make, visit: Visit, anonymous: httpx.Client
    ) -> None:
        bot = make()
        visitor, neighbour, elsewhere = visit(bot), visit(bot), visit(make())
        at = f"{visitor.at}/sessions/{visitor.session}/messages"
        for token, status in (
            (None, 401),
            ("bv_forged", 401),
            (visitor.token[:-4] + "AAAA", 401),
            (elsewhere.token, 401),
            (neighbour.token, 404),
            (visitor.token, 200),
        ):
            headers = {"Origin": ORIGIN} | ({"Authorization": f"Bearer {token}"} if token else {})
            assert anonymous.get(at, headers=headers).status_code == status, token

    @pytest.mark.parametrize("how", ["toggle-active", "regenerate-key", "origins", "put", "delete"])
    def test_dies_with_the_bot_as_it_was(
        self, how: str, make: Make, visit: Visit, client: httpx.Client
    ) -> None:
        bot = make()
        visitor = visit(bot)
        path = f"{BOTS}/{bot['id']}"
        other = [ORIGIN, "https://ir.tarnwick.example"]
        if how == "toggle-active":
            client.post(f"{path}/toggle-active")
            assert visitor.ask().status_code == 404
            client.post(f"{path}/toggle-active")
        elif how == "origins":
            client.patch(path, json={"allowed_origins": other})
        elif how == "put":
            client.put(path, json={"name": "Desk", "persona_id": bot["persona_id"], "allowed_origins": other})
        elif how == "delete":
            client.delete(path)
        else:
            client.post(f"{path}/regenerate-key")
        gone = how in ("delete", "regenerate-key")
        assert visitor.ask().status_code == (404 if gone else 401)
        assert visitor.post("/sessions").status_code == (404 if gone else 401)

    def test_the_same_origins_again_change_nothing(
        self, make: Make, visit: Visit, client: httpx.Client
    ) -> None:
        bot = make()
        visitor = visit(bot)
        client.patch(f"{BOTS}/{bot['id']}", json={"allowed_origins": [ORIGIN], "greeting": "Hi."})
        assert visitor.ask().status_code == 201

    @pytest.mark.usefixtures("migrated")
    def test_ages(self) -> None:
        bot = Bot(id=str(uuid.uuid4()), tenant_id=str(uuid.uuid4()), epoch=3)
        door = visitors.Door(bot, True, frozenset())
        fresh = door.admit("s", "v")
        assert door.ticket(fresh.token()) is not None
        bot.epoch = 4
        assert door.ticket(fresh.token()) is None

    def test_other_credentials_open_nothing(self, make: Make, visit: Visit, server: Server) -> None:
        visitor = visit(make())
        key = {"Authorization": f"Bearer {server.api_key}"}
        assert visitor.get(f"/sessions/{visitor.session}/messages", **key).status_code == 401


class TestLimits:
    def test_a_visitor_asks_so_often_in_a_minute(self, make: Make, visit: Visit) -> None:
        visitor = visit(make(rate_limit_per_minute=3))
        answers = [visitor.ask() for _ in range(4)]
        assert answers[-1].status_code == 429
        assert int(answers[-1].headers["retry-after"]) <= 60
        assert answers[-1].headers[CORS] == ORIGIN

    def test_the_days_questions_are_exact(self, make: Make, visit: Visit, server: Server) -> None:
        bot = make(daily_message_limit=5)
        guests = [visit(bot) for _ in range(12)]
        with ThreadPoolExecutor(12) as pool:
            statuses = [answer.status_code for answer in pool.map(Visitor.ask, guests)]
        assert sorted(statuses) == [201] * 5 + [429] * 7

    def test_the_days_tokens_are_never_overspent(
        self,
        server_with_provider: Server,
        fake_provider: FakeProvider,
        connect: Callable[..., httpx.Client],
    ) -> None:
        owner = connect(server_with_provider.api_key, server_with_provider)
        anonymous = connect(None, server_with_provider)
        persona = owner.get(PERSONAS).json()["results"][0]
        body = {"name": "Budget", "persona_id": persona["id"], "allowed_origins": [ORIGIN]}
        budget = 1500
        bot = owner.post(
            BOTS, json={**body, "daily_token_budget": budget, "rate_limit_per_minute": 1000}
        ).json()
        guests = [Visitor(anonymous, bot) for _ in range(12)]
        with ThreadPoolExecutor(12) as pool:
            statuses = [answer.status_code for answer in pool.map(Visitor.ask, guests)]
        assert set(statuses) == {201, 429}
        with server_with_provider.database() as db:
            day = db.scalars(select(BotDay).where(BotDay.bot_id == bot["id"])).one()
            left = db.scalars(select(BotReservation).where(BotReservation.bot_id == bot["id"])).all()
            assert (day.reserved, left) == (0, [])
            assert 0 < day.tokens <= budget

    def test_a_budget_too_small_for_any_reply_asks_no_provider(self, make: Make, visit: Visit) -> None:
        answer = visit(make(daily_token_budget=1)).ask()
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) > 0

    def test_needs_the_capability(self, make: Make, visit: Visit, server: Server) -> None:
        bot = make()
        visitor = visit(bot)
        with server.database() as db:
            rows = db.scalars(
                select(Subscription).where(Subscription.tenant_id == server.tenant["tenant_id"])
            ).all()
            held = {row.id: row.capabilities for row in rows}
            for row in rows:
                row.capabilities = []
        try:
            assert visitor.ask().json()["error"] == "capability-required"
        finally:
            with server.database() as db:
                for row in db.scalars(select(Subscription).where(Subscription.id.in_(held))):
                    row.capabilities = held[row.id]

    def test_old_conversations_go(self, make: Make, visit: Visit, server: Server) -> None:
        bot, kept = make(retention_days=30), make()
        old, young, forever = visit(bot), visit(bot), visit(kept)
        for visitor in (old, young, forever):
            visitor.ask()
        with server.database() as db:
            told = {visitor: _acts(db, visitor.session) for visitor in (old, young)}
            for visitor in (old, forever):
                db.get_one(ChatSession, visitor.session).last_message_at = now() - timedelta(days=31)
        subprocess.run(  # noqa: S603 - our own program: what the server does by itself each minute
            [sys.executable, "-c", "from storage import visitors; visitors.sweep()"],
            env=server.environment,
            check=True,
            timeout=60,
        )
        with server.database() as db:
            assert db.get(ChatSession, old.session) is None
            assert db.get(ChatSession, young.session) is not None
            assert db.get(ChatSession, forever.session) is not None
            ends = db.scalars(select(AuditEntry).where(AuditEntry.object_id == old.session))
            assert {(e.action, e.actor_kind) for e in ends} == {("create", "anonymous"), ("delete", "system")}
            for visitor, is_known in ((old, False), (young, True)):
                assert len(told[visitor]) == 2, "a conversation and a question"
                acts = [db.get_one(AuditEntry, id) for id in told[visitor]]
                assert {bool(act.address) for act in acts} == {is_known}
                assert {(act.actor_kind, act.actor_id) for act in acts} == {("anonymous", None)}

    @pytest.mark.parametrize("end", ["its deletion", "the bot's"])
    def test_a_visitors_address_goes_with_the_conversation(
        self, end: str, make: Make, visit: Visit, client: httpx.Client, server: Server
    ) -> None:
        bot = make()
        visitor, other = visit(bot), visit(make())
        visitor.ask()
        other.ask()
        with server.database() as db:
            told, others = _acts(db, visitor.session), _acts(db, other.session)
        at = f"/api/v1/chat/sessions/{visitor.session}" if end == "its deletion" else f"{BOTS}/{bot['id']}"
        assert client.delete(at).status_code == 204
        with server.database() as db:
            for ids, is_known in ((told, False), (others, True)):
                assert {bool(db.get_one(AuditEntry, id).address) for id in ids} == {is_known}


def _acts(db: Session, session_id: str) -> list[str]:
    """The entries of the audit log that tell what a visitor did in a conversation."""
    said = select(ChatMessage.id).where(ChatMessage.session_id == session_id)
    told = (AuditEntry.object_id == session_id) | AuditEntry.object_id.in_(said)
    return list(db.scalars(select(AuditEntry.id).where(told, AuditEntry.actor_kind == "anonymous")))
