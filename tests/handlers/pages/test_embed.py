"""The widget's script and the bot's page, without a browser."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.conftest import MakesClient
from tests.handlers.test_embed import BOTS, ORIGIN, Make, make, persona_id
from tests.servers import Server

__all__ = ["make", "persona_id"]
HOSTILE = '"><script>alert(1)</script>'


@pytest.fixture
def stranger(server: Server, connect: MakesClient) -> httpx.Client:
    """Somebody without credentials, beside the contract."""
    return connect(server=server, checked=False)


class TestPage:
    def test_may_be_framed_by_the_allowed_origins_alone(self, make: Make, stranger: httpx.Client) -> None:
        for origins, framers in (
            ([ORIGIN, "http://127.0.0.1:81"], f"{ORIGIN} http://127.0.0.1:81"),
            ([], "'none'"),
        ):
            page = stranger.get(f"/embed/{make(allowed_origins=origins)['public_key']}")
            assert page.status_code == 200
            policy = dict(part.split(" ", 1) for part in page.headers["Content-Security-Policy"].split("; "))
            assert policy["frame-ancestors"] == framers
            assert (policy["default-src"], policy["script-src"]) == ("'none'", "'self'")

    @pytest.mark.parametrize(
        ("icon", "sources"),
        [
            (None, "'self' data:"),
            ("https://cdn.example:8443/a.png", "'self' data: https://cdn.example:8443"),
            ("https://cdn.example;script-src/a.png", "'self' data:"),
        ],
    )
    def test_shows_pictures_of_its_icons_host(
        self, make: Make, stranger: httpx.Client, icon: str | None, sources: str
    ) -> None:
        page = stranger.get(f"/embed/{make(icon_url=icon)['public_key']}")
        policy = dict(part.split(" ", 1) for part in page.headers["Content-Security-Policy"].split("; "))
        assert (policy["img-src"], policy["script-src"]) == (sources, "'self'")

    def test_what_a_tenant_wrote_is_text(self, make: Make, stranger: httpx.Client) -> None:
        bot = make(
            name=HOSTILE, greeting=HOSTILE, suggested_questions=[HOSTILE], theme={"primary_color": HOSTILE}
        )
        page = stranger.get(f"/embed/{bot['public_key']}")
        assert page.status_code == 200
        assert "<script>alert" not in page.text
        assert page.text.count("<script") == 1

    def test_of_a_paused_bot_is_404_like_one_that_never_was(
        self, make: Make, client: httpx.Client, stranger: httpx.Client
    ) -> None:
        bot = make()
        client.post(f"{BOTS}/{bot['id']}/toggle-active", json={"is_active": False})
        assert stranger.get(f"/embed/{bot['public_key']}").status_code == 404
        assert stranger.get("/embed/bot_0000000000000000000000AA").status_code == 404

    @pytest.mark.parametrize(("origins", "status"), [([ORIGIN], 201), ([], 403)])
    def test_talks_to_the_service_from_this_server(
        self, make: Make, server: Server, stranger: httpx.Client, origins: list[str], status: int
    ) -> None:
        bot: dict[str, Any] = make(allowed_origins=origins)
        url = f"/api/v1/embed/{bot['public_key']}/sessions"
        begun = stranger.post(url, headers={"Origin": server.url})
        assert begun.status_code == status
        assert "access-control-allow-origin" not in begun.headers


def test_the_script_is_for_any_site(stranger: httpx.Client) -> None:
    script = stranger.get("/embed.js")
    assert stranger.get("/embed.js/").content == script.content
    assert script.status_code == 200
    assert script.headers["content-type"].startswith("text/javascript")
    assert script.headers["cross-origin-resource-policy"] == "cross-origin"
    assert len(script.headers.get_list("date")) == 1
    again = stranger.get("/embed.js", headers={"If-None-Match": script.headers["etag"]})
    assert again.status_code == 304
