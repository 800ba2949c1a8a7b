"""Replies judged, written again, explained and counted."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from models.chat.analytics import Span, bar_of, percentile
from tests.handlers.test_sessions import SESSIONS, ask, begin


def figures(client: httpx.Client, **query: Any) -> dict[str, Any]:
    response = client.get(f"{SESSIONS}/analytics", params=query)
    assert response.status_code == 200, response.text
    made: dict[str, Any] = response.json()
    return made


class TestRegenerate:
    def test_a_sibling_answers_the_same_question(self, client: httpx.Client) -> None:
        id = begin(client)["id"]
        first = ask(client, id, "What is EBITDA?")
        again = client.post(f"{SESSIONS}/{id}/regenerate")
        assert again.status_code == 201
        second = again.json()
        assert second["parent_id"] == first["parent_id"]
        assert second["id"] != first["id"]
        newest = client.get(f"{SESSIONS}/{id}/messages").json()["results"]
        assert [m["id"] for m in newest] == [first["parent_id"], second["id"]]
        other = client.get(f"{SESSIONS}/{id}/messages", params={"leaf": str(first["id"])}).json()["results"]
        assert [m["id"] for m in other] == [first["parent_id"], first["id"]]
        assert client.get(f"{SESSIONS}/{id}").json()["message_count"] == 3

    def test_it_streams_where_events_are_accepted(self, client: httpx.Client) -> None:
        id = begin(client)["id"]
        first = ask(client, id, "What is EBITDA?")
        response = client.post(f"{SESSIONS}/{id}/regenerate", headers={"Accept": "text/event-stream"})
        assert response.headers["content-type"].startswith("text/event-stream")
        assert "event: message.completed" in response.text
        assert str(first["parent_id"]) in response.text

    def test_without_a_question_there_is_nothing_to_answer(self, client: httpx.Client) -> None:
        id = begin(client)["id"]
        assert client.post(f"{SESSIONS}/{id}/regenerate").status_code == 422


class TestFeedback:
    def test_it_is_kept_changed_and_taken_back(self, client: httpx.Client) -> None:
        id = begin(client)["id"]
        reply = ask(client, id, "What is EBITDA?")
        url = f"{SESSIONS}/{id}/messages/{reply['id']}/feedback"
        assert client.put(url, json={"rating": "helpful", "comment": "Yes"}).status_code == 200
        assert client.put(url, json={"rating": "unhelpful"}).json() == {
            "rating": "unhelpful",
            "comment": None,
        }
        shown = client.get(f"{SESSIONS}/{id}/history").json()["messages"][1]
        assert shown["feedback"] == {"rating": "unhelpful", "comment": None}
        for _ in range(2):
            assert client.delete(url).status_code == 204
        assert client.get(f"{SESSIONS}/{id}/history").json()["messages"][1]["feedback"] is None

    def test_a_question_takes_none(self, client: httpx.Client) -> None:
        id = begin(client)["id"]
        reply = ask(client, id, "What is EBITDA?")
        url = f"{SESSIONS}/{id}/messages/{reply['parent_id']}/feedback"
        assert client.put(url, json={"rating": "helpful"}).status_code == 404


def test_the_trace_tells_who_answered(client: httpx.Client) -> None:
    id = begin(client)["id"]
    reply = ask(client, id, "What is EBITDA?")
    trace = client.get(f"{SESSIONS}/{id}/messages/{reply['id']}/trace").json()
    assert trace["message_id"] == reply["id"]
    assert trace["persona_version"] == reply["persona_version"]
    assert trace["providers"] == ["extractive"]
    assert trace["usage"] == reply["usage"]


class TestFigures:
    def test_sums_equal_what_was_sent(self, client_with: Callable[..., httpx.Client]) -> None:
        admin = client_with(role="admin")
        before = figures(admin)["totals"]
        id = begin(admin)["id"]
        replies = [ask(admin, id, f"Question {number}?") for number in range(3)]
        replies.append(admin.post(f"{SESSIONS}/{id}/regenerate").json())
        admin.put(f"{SESSIONS}/{id}/messages/{replies[0]['id']}/feedback", json={"rating": "helpful"})
        report = figures(admin)
        gained = {name: report["totals"][name] - before[name] for name in before if not name.startswith("p")}
        tokens = sum(reply["usage"]["total_tokens"] for reply in replies)  # type: ignore[index]  # JSON
        assert gained["sessions"] == 1
        assert (gained["questions"], gained["replies"], gained["messages"]) == (3, 4, 7)
        assert gained["total_tokens"] == tokens
        assert gained["helpful"] == 1
        of_session = admin.get(f"{SESSIONS}/{id}/analytics").json()["figures"]
        for name in (
            "questions",
            "replies",
            "messages",
            "total_tokens",
            "helpful",
            "unanswered",
            "citations",
        ):
            assert of_session[name] == gained[name], name
        user_id = admin.get("/api/v1/auth/me").json()["id"]
        (mine,) = [row for row in report["by_user"] if row["user_id"] == user_id]
        assert mine["replies"] == 4
        assert sum(row["replies"] for row in report["series"]) == report["totals"]["replies"]
        admin.delete(f"{SESSIONS}/{id}")
        assert figures(admin)["totals"]["replies"] == report["totals"]["replies"], "counts stay"

    def test_series_cover_the_time_that_was_asked_for(self, client: httpx.Client) -> None:
        at = datetime(2026, 3, 4, 13, 30, tzinfo=UTC)
        query = {"from": at.isoformat(), "to": (at + timedelta(days=2)).isoformat(), "interval": "day"}
        report = figures(client, **query)
        assert [row["start"][:10] for row in report["series"]] == ["2026-03-04", "2026-03-05", "2026-03-06"]
        assert all(row["replies"] == 0 and row["p50_latency_ms"] is None for row in report["series"])
        rows = list(csv.DictReader(io.StringIO(client.get(f"{SESSIONS}/analytics.csv", params=query).text)))
        assert len(rows) == 3

    @pytest.mark.parametrize("role", ["viewer", "member"])
    def test_everybodys_figures_are_for_administrators(
        self, client_with: Callable[..., httpx.Client], role: str
    ) -> None:
        assert client_with(role=role).get(f"{SESSIONS}/analytics").status_code == 403
        assert client_with(role="admin").get(f"{SESSIONS}/analytics").status_code == 200

    @pytest.mark.parametrize(
        "query",
        [
            {"from": "2026-03-04T00:00:00Z", "to": "2026-03-04T00:00:00Z"},
            {"from": "2020-03-04T00:00:00Z", "to": "2026-03-04T00:00:00Z", "interval": "hour"},
            {"to": "9999-12-31T23:59:59Z", "interval": "week"},
            {"to": "0001-01-01T00:00:00Z"},
        ],
    )
    def test_what_cannot_be_answered_is_refused(self, client: httpx.Client, query: dict[str, str]) -> None:
        assert client.get(f"{SESSIONS}/analytics", params=query).status_code == 422

    def test_percentiles_are_within_three_percent(self) -> None:
        values = range(100, 5000, 7)
        bars: dict[int, int] = {}
        for value in values:
            bars[bar_of(value)] = bars.get(bar_of(value), 0) + 1
        for share in (0.5, 0.95):
            exact = values[round(share * len(values)) - 1]
            found = percentile(bars, share)
            assert found is not None
            assert abs(found - exact) / exact < 0.03

    def test_weeks_begin_on_monday(self) -> None:
        span = Span.around(datetime(2026, 3, 4, tzinfo=UTC), datetime(2026, 3, 10, tzinfo=UTC), "week")
        assert [start.weekday() for start in span] == [0, 0]


class TestBulk:
    def test_each_is_told_for_itself(
        self, client_with: Callable[..., httpx.Client], other: httpx.Client
    ) -> None:
        mine, foreign = client_with(role="admin"), begin(other)["id"]
        ids = [begin(mine)["id"], begin(mine)["id"]]
        body = {"action": "archive", "ids": [ids[0], foreign, ids[1]]}
        told = mine.post(f"{SESSIONS}/bulk", json={**body, "dry_run": True}).json()
        assert [row["status"] for row in told["results"]] == ["ok", "not_found", "ok"]
        assert mine.get(f"{SESSIONS}/{ids[0]}").json()["status"] == "active"
        told = mine.post(f"{SESSIONS}/bulk", json=body).json()
        assert (told["succeeded"], told["failed"]) == (2, 1)
        archived = {"action": "restore", "filter": {"status": "archived"}}
        assert {row["id"] for row in mine.post(f"{SESSIONS}/bulk", json=archived).json()["results"]} == set(
            ids
        )
        exported = mine.post(f"{SESSIONS}/bulk", json={"action": "export", "ids": ids}).json()
        assert [row["history"]["session"]["id"] for row in exported["results"]] == ids
        assert mine.post(f"{SESSIONS}/bulk", json={"action": "delete", "filter": {}}).json()["succeeded"] == 2
        assert mine.get(SESSIONS).json()["count"] == 0
