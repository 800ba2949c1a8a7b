"""Tenants and what belongs to them, as operators and administrators change it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from models.base import now
from models.tenancy import TokenReservation
from tests.conftest import MakesClient
from tests.servers import PASSWORD, Server, Tenant, new_user

API = "/api/v1/tenants"


@pytest.fixture(scope="session")
def operator_key(server: Server) -> str:
    key: str = json.loads(server.booga("operator-key", "--json"))["api_key"]
    return key


@pytest.fixture
def operator(operator_key: str, connect: MakesClient) -> httpx.Client:
    return connect(operator_key)


def made(response: httpx.Response) -> Any:
    assert response.is_success, response.text
    return response.json()


@pytest.fixture(scope="session")
def company(server: Server) -> Tenant:
    """A tenant of these tests alone."""
    return server.bootstrap("Company of its own")


@pytest.fixture
def admin(company: Tenant, connect: MakesClient) -> httpx.Client:
    return connect(company["api_key"])


def soon(client: httpx.Client, path: str, status: int) -> bool:
    """Whether the answer is that within a second: other workers remember a caller for half of one."""
    until = time.monotonic() + 1
    while (seen := client.get(path).status_code) != status and time.monotonic() < until:
        time.sleep(0.02)  # there is nothing to wait for but that second
    return seen == status


def refused_soon(client: httpx.Client) -> bool:
    return soon(client, f"{API}/current", 401)


def subscription_of(operator: httpx.Client, tenant_id: str) -> Any:
    return made(operator.get(f"{API}/subscriptions", params={"tenant_id": tenant_id}))["results"][0]


class TestOperators:
    def test_they_have_a_key_of_their_own_kind(self, operator_key: str) -> None:
        assert operator_key.startswith("bk_oper_")

    @pytest.mark.parametrize("path", ["/chat", "/chat/personas", "/chat/sessions", "/chat/documents"])
    def test_they_read_nothing_that_tenants_keep(self, path: str, operator: httpx.Client) -> None:
        answer = operator.get(f"/api/v1{path}")
        assert answer.status_code == (404 if path == "/chat/documents" else 403)

    def test_what_belongs_to_a_tenant_is_not_theirs(self, operator: httpx.Client) -> None:
        assert operator.get(f"{API}/current").status_code == 403
        assert operator.get(f"{API}/stacks").status_code == 403

    def test_a_tenants_owner_is_no_operator(self, client: httpx.Client) -> None:
        for answer in (
            client.get(API),
            client.post(API, json={"name": "Mine"}),
            client.post(f"{API}/products", json={"name": "Mine"}),
        ):
            assert (answer.status_code, answer.json()["error"]) == (403, "forbidden")

    def test_they_are_themselves_in_no_list(self, operator: httpx.Client) -> None:
        assert "Operators" not in operator.get(API, headers={"Accept": "text/csv"}).text
        nobody = "00000000-0000-0000-0000-000000000000"
        assert operator.get(f"{API}/{nobody}").status_code == 404

    def test_a_whole_company_from_nothing_to_a_chat(
        self, operator: httpx.Client, connect: MakesClient
    ) -> None:
        address = f"ada-{time.time_ns()}@example.com"
        owner = {"email": address, "password": PASSWORD}
        tenant = made(operator.post(API, json={"name": "Newly made", "owner": owner}))
        product = made(
            operator.post(f"{API}/products", json={"name": f"P {address}", "capabilities": ["chat_ai"]})
        )
        region = made(operator.post(f"{API}/regions", json={"name": f"R {address}"}))
        tokens = made(connect().post("/api/v1/auth/login", json={"email": address, "password": PASSWORD}))
        person = connect()
        person.headers["Authorization"] = f"Bearer {tokens['access_token']}"
        of = {"product_id": product["id"], "region_id": region["id"]}
        assert person.post(f"{API}/stacks", json=of).status_code == 422
        assert person.get("/api/v1/chat/personas").status_code == 403
        bought = {"tenant_id": tenant["id"], "product_id": product["id"], "seats": 1}
        subscription = made(operator.post(f"{API}/subscriptions", json=bought))
        assert subscription["capabilities"] == ["chat_ai"]
        stack = made(person.post(f"{API}/stacks", json=of))
        assert person.post(f"{API}/stacks", json=of).status_code == 409
        assert soon(person, "/api/v1/chat/personas", 200)
        me = made(person.get("/api/v1/auth/me"))
        seat = f"{API}/subscriptions/{subscription['id']}/seats/{me['id']}"
        assert made(person.put(seat)) == made(person.put(seat))
        regions = {"region_ids": [region["id"]]}
        assert made(person.put(f"{API}/users/{me['id']}/regions", json=regions)) == regions
        eligible = made(person.get("/api/v1/chat/users", params={"stack_id": stack["id"]}))["data"]
        assert me["id"] in [user["id"] for user in eligible]
        for kept in (
            f"{API}/products/{product['id']}",
            f"{API}/regions/{region['id']}",
            f"{API}/{tenant['id']}",
        ):
            assert operator.delete(kept).status_code == 409

        assert operator.patch(f"{API}/{tenant['id']}", json={"is_active": False}).status_code == 200
        assert refused_soon(person)
        assert operator.delete(f"{API}/{tenant['id']}").status_code == 204
        assert operator.get(f"{API}/{tenant['id']}").status_code == 404
        assert operator.delete(f"{API}/products/{product['id']}").status_code == 204
        assert operator.delete(f"{API}/regions/{region['id']}").status_code == 204

    def test_an_invitation_of_somebody_elses_takes_no_address(
        self, operator: httpx.Client, admin: httpx.Client
    ) -> None:
        address = f"invited-{time.time_ns()}@example.com"
        assert admin.post(f"{API}/users", json={"email": address, "role": "member"}).status_code == 201
        body = {"name": "Their own", "owner": {"email": address, "password": PASSWORD}}
        assert operator.post(API, json=body).status_code == 201
        again = operator.post(API, json=body)
        assert (again.status_code, again.json()["errors"][0]["pointer"]) == (409, "/owner/email")


class TestSubscriptions:
    def test_a_tenant_sees_its_own_alone(
        self, operator: httpx.Client, admin: httpx.Client, client: httpx.Client, company: Tenant
    ) -> None:
        own = subscription_of(operator, company["tenant_id"])
        assert [row["id"] for row in made(admin.get(f"{API}/subscriptions"))["results"]] == [own["id"]]
        assert client.get(f"{API}/subscriptions/{own['id']}").status_code == 404
        assert (
            client.get(f"{API}/subscriptions", params={"tenant_id": company["tenant_id"]}).status_code == 404
        )

    def test_what_it_grants_ends_within_a_second(
        self, operator: httpx.Client, admin: httpx.Client, company: Tenant
    ) -> None:
        url = f"{API}/subscriptions/{subscription_of(operator, company['tenant_id'])['id']}"
        assert admin.get("/api/v1/chat/personas").status_code == 200
        over = {"period_start": "0819-01-01T00:00:00.000000Z", "period_end": "2020-01-01T00:00:00.000000Z"}
        changes: list[dict[str, Any]] = [{"status": "suspended"}, {"capabilities": []}, over]
        for change in changes:
            before = made(operator.get(url))
            changed = made(operator.patch(url, json=change))
            assert {name: changed[name] for name in change} == change
            until = time.monotonic() + 1
            while admin.get("/api/v1/chat/personas").status_code == 200 and time.monotonic() < until:
                time.sleep(0.02)  # other workers remember a caller for half a second
            refused = admin.get("/api/v1/chat/personas")
            assert (refused.status_code, refused.json()["error"]) == (403, "capability-required")
            back = {name: before[name] for name in change}
            assert operator.patch(url, json=back).status_code == 200

    def test_a_capability_that_the_product_lacks_is_refused(
        self, operator: httpx.Client, company: Tenant
    ) -> None:
        url = f"{API}/subscriptions/{subscription_of(operator, company['tenant_id'])['id']}"
        assert operator.patch(url, json={"capabilities": ["time_travel"]}).status_code == 422

    def test_seats_are_never_oversold(self, server: Server, operator: httpx.Client, company: Tenant) -> None:
        own = subscription_of(operator, company["tenant_id"])
        taken = own["seats_used"]
        with server.database() as db:
            people = [new_user(db, company, "member", seated=False).id for _ in range(50)]
        operator.patch(f"{API}/subscriptions/{own['id']}", json={"seats": taken + 7})
        url = f"{server.url}{API}/subscriptions/{own['id']}/seats"

        def take(user_id: str) -> int:
            return httpx.put(
                f"{url}/{user_id}", headers={"X-API-Key": company["api_key"]}, timeout=60
            ).status_code

        with ThreadPoolExecutor(50) as at_once:
            answers = list(at_once.map(take, people))
        assert (answers.count(200), answers.count(409)) == (7, 43)
        assert made(operator.get(f"{API}/subscriptions/{own['id']}"))["seats_used"] == taken + 7
        fewer = operator.patch(f"{API}/subscriptions/{own['id']}", json={"seats": taken})
        assert fewer.status_code == 409


class TestOwnTenant:
    def test_it_is_renamed(self, admin: httpx.Client, company: Tenant) -> None:
        assert made(admin.patch(f"{API}/current", json={"name": "Renamed"}))["name"] == "Renamed"
        shown = made(admin.get(f"{API}/current"))
        assert (shown["id"], shown["name"]) == (company["tenant_id"], "Renamed")

    def test_organizations(self, admin: httpx.Client) -> None:
        one = made(admin.post(f"{API}/organizations", json={"name": "Treasury"}))
        assert (
            made(admin.patch(f"{API}/organizations/{one['id']}", json={"name": "Audit"}))["name"] == "Audit"
        )
        assert admin.delete(f"{API}/organizations/{one['id']}").status_code == 204
        assert admin.get(f"{API}/organizations/{one['id']}").status_code == 404

    def test_a_stack_in_use_is_kept(self, admin: httpx.Client, company: Tenant) -> None:
        assert admin.delete(f"{API}/stacks/{company['stack_id']}").status_code == 409

    def test_usage_stands_beside_its_limits(
        self, operator: httpx.Client, admin: httpx.Client, company: Tenant
    ) -> None:
        quotas = {"tokens_per_day": 5_000_000, "storage_bytes": 1_000_000_000, "documents": 1000}
        assert operator.patch(f"{API}/{company['tenant_id']}", json={"quotas": quotas}).status_code == 200
        usage = made(admin.get(f"{API}/current/usage"))
        assert [usage[name]["limit"] for name in ("tokens", "storage", "documents")] == list(quotas.values())
        assert usage["seats"]["used"] >= 1


class TestKeys:
    @pytest.fixture
    def key(self, admin: httpx.Client) -> Iterator[Any]:
        scopes = ["chat:read", "tenants:read", "api_keys:write"]
        shown = made(admin.post("/api/v1/api-keys", json={"name": "A test's", "scopes": scopes}))
        yield shown
        admin.delete(f"/api/v1/api-keys/{shown['id']}")

    def test_its_text_is_shown_once(self, admin: httpx.Client, key: Any) -> None:
        assert key["key"].startswith(key["prefix"])
        assert "key" not in made(admin.get(f"/api/v1/api-keys/{key['id']}"))
        assert key["key"] not in admin.get("/api/v1/api-keys", params={"page_size": 100}).text

    def test_it_does_what_its_scopes_say(self, key: Any, connect: MakesClient) -> None:
        with_key = connect(key["key"])
        assert with_key.get(f"{API}/current").status_code == 200
        assert with_key.patch(f"{API}/current", json={"name": "No"}).status_code == 403

    def test_a_key_makes_none_that_may_do_more(self, key: Any, connect: MakesClient) -> None:
        wider = {"name": "Wider", "scopes": ["tenants:write"]}
        assert connect(key["key"]).post("/api/v1/api-keys", json=wider).status_code == 422

    def test_a_key_gives_no_more_time_and_no_higher_rate_than_it_has(
        self, admin: httpx.Client, key: Any, connect: MakesClient
    ) -> None:
        url, ends = f"/api/v1/api-keys/{key['id']}", now() + timedelta(hours=1)
        bounds: dict[str, Any] = {"expires_at": ends.isoformat(), "rate_limit_per_minute": 1000}
        later = {"expires_at": (ends + timedelta(minutes=1)).isoformat()}
        assert admin.patch(url, json=bounds).status_code == 200
        with_key = connect(key["key"])
        child = {"name": "Child", "scopes": ["chat:read"]}
        for beyond, pointer in (
            ({"rate_limit_per_minute": 1000}, "/expires_at"),
            (bounds | later, "/expires_at"),
            ({"expires_at": bounds["expires_at"]}, "/rate_limit_per_minute"),
            (bounds | {"rate_limit_per_minute": 1001}, "/rate_limit_per_minute"),
        ):
            refused = with_key.post("/api/v1/api-keys", json=child | beyond)
            assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, pointer)
        for widened in ({"expires_at": None}, later, {"rate_limit_per_minute": None}):
            assert with_key.patch(url, json=widened).status_code == 422
        assert with_key.patch(url, json={"name": "The same bounds"} | bounds).status_code == 200
        grown = made(with_key.post("/api/v1/api-keys", json=child | bounds))
        assert admin.patch(f"/api/v1/api-keys/{grown['id']}", json={"expires_at": None}).status_code == 200

    def test_revoked_it_is_out_at_once(self, admin: httpx.Client, key: Any, connect: MakesClient) -> None:
        with_key = connect(key["key"])
        assert with_key.get(f"{API}/current").status_code == 200
        assert admin.delete(f"/api/v1/api-keys/{key['id']}").status_code == 204
        assert refused_soon(with_key)

    def test_rotated_both_are_good_for_the_overlap(
        self, admin: httpx.Client, key: Any, connect: MakesClient
    ) -> None:
        url = f"/api/v1/api-keys/{key['id']}/rotate"
        second = made(admin.post(url, json={"overlap_seconds": 60}))["key"]
        assert [connect(text).get(f"{API}/current").status_code for text in (key["key"], second)] == [
            200,
            200,
        ]
        third = made(admin.post(url, json={}))["key"]
        assert refused_soon(connect(key["key"]))
        assert refused_soon(connect(second))
        assert connect(third).get(f"{API}/current").status_code == 200

    def test_its_end_lies_ahead(self, admin: httpx.Client) -> None:
        past = {"name": "Late", "scopes": ["chat:read"], "expires_at": "2020-01-01T00:00:00Z"}
        assert admin.post("/api/v1/api-keys", json=past).status_code == 422

    def test_a_limit_of_its_own_holds(self, admin: httpx.Client, connect: MakesClient, key: Any) -> None:
        url = f"/api/v1/api-keys/{key['id']}"
        assert admin.patch(url, json={"rate_limit_per_minute": 3}).status_code == 200
        with_key = connect(key["key"])
        answers = [with_key.get(f"{API}/current").status_code for _ in range(8)]
        assert 429 in answers

    def test_members_see_their_own_alone(
        self, admin: httpx.Client, company: Tenant, key: Any, server: Server, connect: MakesClient
    ) -> None:
        member = connect(server.issue_key(role="member", tenant=company))
        own = made(member.post("/api/v1/api-keys", json={"name": "Own", "scopes": ["chat:read"]}))
        assert {row["user_id"] for row in made(member.get("/api/v1/api-keys"))["results"]} == {own["user_id"]}
        assert member.get(f"/api/v1/api-keys/{key['id']}").status_code == 404
        assert admin.get(f"/api/v1/api-keys/{own['id']}").status_code == 200
        assert admin.post(f"/api/v1/api-keys/{own['id']}/rotate", json={}).status_code == 403

    def test_an_admin_leaves_owners_keys_alone(
        self, company: Tenant, key: Any, server: Server, connect: MakesClient
    ) -> None:
        weaker = connect(server.issue_key(role="admin", tenant=company))
        assert weaker.get(f"/api/v1/api-keys/{key['id']}").status_code == 200
        assert weaker.delete(f"/api/v1/api-keys/{key['id']}").status_code == 403


class TestQuotas:
    @pytest.fixture
    def limited(self, server: Server, operator: httpx.Client) -> Any:
        """A tenant whose quotas a test may set: ``limit(tokens_per_day=...)``."""
        tenant = server.bootstrap("Limited")

        def limit(**quotas: int | None) -> Tenant:
            made(operator.patch(f"{API}/{tenant['tenant_id']}", json={"quotas": quotas}))
            return tenant

        return limit

    def test_without_tokens_there_is_no_reply(self, limited: Any, connect: MakesClient) -> None:
        tenant = limited(tokens_per_day=0)
        owner = connect(tenant["api_key"])
        session = made(owner.post("/api/v1/chat/sessions", json={"stack_id": tenant["stack_id"]}))
        answer = owner.post(f"/api/v1/chat/sessions/{session['id']}/messages", json={"content": "Hello?"})
        assert (answer.status_code, answer.json()["error"]) == (429, "too-many-requests")
        assert 0 < int(answer.headers["Retry-After"]) <= 86_400
        assert made(owner.get(f"/api/v1/chat/sessions/{session['id']}/messages"))["count"] == 0

    def test_of_replies_asked_for_at_once_no_more_run_than_there_are_tokens(
        self, server: Server, limited: Any, connect: MakesClient
    ) -> None:
        tenant = limited(tokens_per_day=2_000)
        owner = connect(tenant["api_key"])
        url = "/api/v1/chat/sessions"
        ids = [made(owner.post(url, json={"stack_id": tenant["stack_id"]}))["id"] for _ in range(20)]

        def ask(id: str) -> int:
            headers, body = {"X-API-Key": tenant["api_key"]}, {"content": "What was the revenue?"}
            answer = httpx.post(f"{server.url}{url}/{id}/messages", headers=headers, json=body, timeout=60)
            return answer.status_code

        with ThreadPoolExecutor(20) as at_once:
            answers = list(at_once.map(ask, ids))
        assert set(answers) == {201, 429}
        usage = made(owner.get(f"{API}/current/usage"))["tokens"]
        assert 0 < usage["used"] <= usage["limit"]

    def test_documents_beyond_the_quota_are_403(
        self, server: Server, limited: Any, connect: MakesClient
    ) -> None:
        tenant = limited(documents=2)
        owner = connect(tenant["api_key"])
        index = made(owner.post("/api/v1/chat/knowledge/indices", json={"name": "Few"}))["id"]

        def add(number: int) -> int:
            body = {"index_id": index, "name": f"{number}.txt", "text": f"Note {number}."}
            headers, url = {"X-API-Key": tenant["api_key"]}, f"{server.url}/api/v1/chat/knowledge/documents"
            return httpx.post(url, headers=headers, json=body, timeout=60).status_code

        with ThreadPoolExecutor(6) as at_once:
            answers = list(at_once.map(add, range(6)))
        assert (answers.count(201), answers.count(403)) == (2, 4)
        assert made(owner.get(f"{API}/current/usage"))["documents"] == {"used": 2, "limit": 2}

    def test_bytes_beyond_the_quota_are_403_with_the_reason_and_not_kept(
        self, server: Server, limited: Any, connect: MakesClient
    ) -> None:
        text = "A line of forty bytes, the quota's tenth"
        tenant = limited(storage_bytes=10 * len(text))
        owner = connect(tenant["api_key"])
        index = made(owner.post("/api/v1/chat/knowledge/indices", json={"name": "Little"}))["id"]
        session = made(owner.post("/api/v1/chat/sessions", json={"stack_id": tenant["stack_id"]}))["id"]

        def add(number: int) -> httpx.Response:
            """A document, or a file of a session: one quota is for both."""
            content, headers = f"{number}{text[1:]}".encode() * 4, {"X-API-Key": tenant["api_key"]}
            path, about = [
                ("knowledge/documents", {"index_id": index}),
                ("files", {"session_id": session}),
            ][number % 2]
            url, file = f"{server.url}/api/v1/chat/{path}", (f"{number}.txt", content, "text/plain")
            return httpx.post(url, headers=headers, data=about, files={"file": file}, timeout=60)

        with ThreadPoolExecutor(6) as at_once:
            answers = list(at_once.map(add, range(6)))
        kept = [answer for answer in answers if answer.is_success]
        refused = [answer.json() for answer in answers if not answer.is_success]
        assert (len(kept), len(refused)) == (2, 4)
        assert {(body["status"], body["error"]) for body in refused} == {(403, "quota-exhausted")}
        assert all(str(10 * len(text)) in body["detail"] for body in refused)
        assert made(owner.get(f"{API}/current/usage"))["storage"] == {"used": 320, "limit": 400}
        files = [
            path for path in (server.data_dir / "files" / tenant["tenant_id"]).rglob("*") if path.is_file()
        ]
        assert sum(path.stat().st_size for path in files) == 320

    def test_the_openai_door_says_when_there_are_no_tokens_in_openais_shape(
        self, limited: Any, connect: MakesClient
    ) -> None:
        tenant = limited(tokens_per_day=0)
        body = {"model": "assistant", "messages": [{"role": "user", "content": "Hello?"}]}
        for stream in (False, True):
            url = "/openai/v1/chat/completions"
            answer = connect(tenant["api_key"]).post(url, json=body | {"stream": stream})
            assert answer.status_code == 429
            told = answer.json()["error"]
            assert (told["type"], told["code"]) == ("rate_limit_error", "too_many_requests")
            assert "0 tokens a day" in told["message"]
            assert 0 < int(answer.headers["Retry-After"]) <= 86_400

    @pytest.mark.parametrize("kind", ["door", "preview"])
    def test_what_is_not_stored_is_reserved_and_settled_too(
        self, kind: str, server: Server, limited: Any, connect: MakesClient
    ) -> None:
        tenant = limited(tokens_per_day=2_000)
        owner = connect(tenant["api_key"])
        persona = made(owner.get("/api/v1/chat/personas"))["results"][0]
        url, body = {
            "door": (
                "/openai/v1/chat/completions",
                {"model": persona["slug"], "messages": [{"role": "user", "content": "Hello?"}]},
            ),
            "preview": (f"/api/v1/chat/personas/{persona['id']}/preview", {"content": "Hello?"}),
        }[kind]

        def ask(number: int) -> int:
            headers = {"X-API-Key": tenant["api_key"]}
            return httpx.post(f"{server.url}{url}", headers=headers, json=body, timeout=60).status_code

        with ThreadPoolExecutor(20) as at_once:
            answers = list(at_once.map(ask, range(20)))
        assert set(answers) == {200, 429}
        usage = made(owner.get(f"{API}/current/usage"))["tokens"]
        assert 0 < usage["used"] <= usage["limit"]
        with server.database() as db:
            held = select(func.count()).where(TokenReservation.tenant_id == tenant["tenant_id"])
            assert db.scalar(held) == 0
