"""Bots on the dashboard: their fields and rules, keys, embed code, icons."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.servers import Server

BOTS, PERSONAS = "/api/v1/chat/bots", "/api/v1/chat/personas"
ORIGIN = "https://www.tarnwick.example"


@pytest.fixture
def persona_id(client: httpx.Client) -> str:
    """The persona that every tenant begins with."""
    return str(client.get(PERSONAS).json()["results"][0]["id"])


@pytest.fixture
def bot(client: httpx.Client, persona_id: str) -> dict[str, Any]:
    """A bot on one site."""
    response = client.post(
        BOTS, json={"name": "Investor desk", "persona_id": persona_id, "allowed_origins": [ORIGIN]}
    )
    assert response.status_code == 201, response.text
    made: dict[str, Any] = response.json()
    return made


def picture(kind: str = "PNG", size: tuple[int, int] = (40, 30), mode: str = "RGB", **options: Any) -> bytes:
    """A picture of that kind."""
    out = io.BytesIO()
    Image.new(mode, size, "teal").save(out, kind, **options)
    return out.getvalue()


class TestFields:
    def test_begins_with_nobody_allowed(self, client: httpx.Client, persona_id: str, server: Server) -> None:
        made = client.post(BOTS, json={"name": "Plain", "persona_id": persona_id}).json()
        assert made["allowed_origins"] == []
        assert made["persona"]["id"] == made["persona_id"] == persona_id
        assert made["stack_id"] == server.tenant["stack_id"]
        assert re.fullmatch(r"bot_[A-Za-z0-9]{24}", made["public_key"])
        assert made["is_active"]
        assert made["collect_feedback"]

    def test_keeps_what_was_set(self, client: httpx.Client, bot: dict[str, Any]) -> None:
        wanted = {
            "theme": {"primary_color": "#0b5fff", "radius": 8, "dark": True},
            "greeting": "Hello.",
            "suggested_questions": ["What was revenue?"],
            "rate_limit_per_minute": 7,
            "daily_message_limit": 8,
            "daily_token_budget": 9,
            "retention_days": 10,
            "collect_feedback": False,
            "icon_url": "https://cdn.example/a.png",
        }
        changed = client.patch(f"{BOTS}/{bot['id']}", json=wanted).json()
        assert wanted.items() <= changed.items()
        assert client.get(f"{BOTS}/{bot['id']}").json() == changed
        replaced = client.put(
            f"{BOTS}/{bot['id']}", json={"name": "Other", "persona_id": bot["persona_id"]}
        ).json()
        assert (replaced["greeting"], replaced["theme"], replaced["allowed_origins"]) == ("", {}, [])
        assert replaced["public_key"] == bot["public_key"]

    def test_lists_by_stack_and_state(
        self, client: httpx.Client, bot: dict[str, Any], server: Server
    ) -> None:
        client.post(f"{BOTS}/{bot['id']}/toggle-active", json={"is_active": False})
        query: dict[str, Any] = {"stack_id": server.tenant["stack_id"], "page_size": 100}
        paused = client.get(BOTS, params={**query, "is_active": "false"}).json()["results"]
        running = client.get(BOTS, params={**query, "is_active": "true"}).json()["results"]
        assert bot["id"] in [row["id"] for row in paused]
        assert bot["id"] not in [row["id"] for row in running]

    def test_a_slug_belongs_to_one(self, client: httpx.Client, bot: dict[str, Any]) -> None:
        body = {"name": "Twin", "persona_id": bot["persona_id"], "slug": bot["slug"]}
        assert client.post(BOTS, json=body).status_code == 409

    def test_a_persona_that_a_bot_speaks_with_stays(self, client: httpx.Client, server: Server) -> None:
        persona = client.post(PERSONAS, json={"name": "Voice", "stack_id": server.tenant["stack_id"]}).json()
        made = client.post(BOTS, json={"name": "Speaker", "persona_id": persona["id"]}).json()
        assert client.delete(f"{PERSONAS}/{persona['id']}").status_code == 409
        assert client.delete(f"{BOTS}/{made['id']}").status_code == 204
        assert client.delete(f"{PERSONAS}/{persona['id']}").status_code == 204

    @pytest.mark.parametrize(
        ("origin", "status"),
        [
            ("https://a.example", 200),
            ("http://localhost:3000", 200),
            ("http://[::1]:8080", 200),
            ("*", 400),
            ("null", 400),
            ("https://*.example", 400),
            ("https://A.example", 400),
            ("https://a.example/", 400),
            ("https://a.example/path", 400),
            ("https://user@a.example", 400),
            ("ftp://a.example", 400),
            ("a.example", 400),
            ("https://a.example:443", 422),
            ("http://a.example:80", 422),
            ("https://a.example:99999", 422),
            ("http://[2001:db8::8a2e:370]", 200),
            ("http://[3]", 422),
            ("http://[0:0:0:0:0:0:0:1]", 422),
            ("http://[::::]:80", 422),
        ],
    )
    def test_origins_are_exact(
        self, origin: str, status: int, client: httpx.Client, bot: dict[str, Any]
    ) -> None:
        response = client.patch(f"{BOTS}/{bot['id']}", json={"allowed_origins": [origin]})
        assert response.status_code == status
        if status != 200:
            assert response.json()["errors"][0]["pointer"] == "/allowed_origins/0"

    def test_viewers_and_members_only_read(
        self, bot: dict[str, Any], client_with: Callable[..., httpx.Client]
    ) -> None:
        for role in ("viewer", "member"):
            reader = client_with(role=role)
            assert reader.get(f"{BOTS}/{bot['id']}").status_code == 200
            assert reader.post(f"{BOTS}/{bot['id']}/regenerate-key").status_code == 403


class TestSwitches:
    def test_flips_or_sets(self, client: httpx.Client, bot: dict[str, Any]) -> None:
        at = f"{BOTS}/{bot['id']}/toggle-active"
        assert client.post(at).json()["is_active"] is False
        assert client.post(at).json()["is_active"] is True
        assert client.post(at, json={"is_active": True}).json()["is_active"] is True
        assert client.post(at, json={}).json()["is_active"] is False

    def test_the_key_is_another(self, client: httpx.Client, bot: dict[str, Any]) -> None:
        renewed = client.post(f"{BOTS}/{bot['id']}/regenerate-key").json()
        assert renewed["public_key"] != bot["public_key"]
        assert renewed["id"] == bot["id"]

    def test_the_embed_code_is_safe_whatever_the_name(
        self, client: httpx.Client, bot: dict[str, Any], server: Server
    ) -> None:
        client.patch(f"{BOTS}/{bot['id']}", json={"name": '"><script>alert(1)</script>'})
        code = client.get(f"{BOTS}/{bot['id']}/embed-code").json()
        assert f'src="{server.url}/embed.js" data-bot="{bot["public_key"]}"' in code["script"]
        assert f'src="{server.url}/embed/{bot["public_key"]}"' in code["iframe"]
        assert "<script>" not in code["iframe"]
        assert bot["public_key"] in code["react"]

    def test_health_is_in_the_envelope(self, client: httpx.Client) -> None:
        told = client.get(f"{BOTS}/health").json()
        assert told["success"] is True
        assert told["data"]["checks"]


class TestIcons:
    def upload(self, client: httpx.Client, content: bytes, name: str, kind: str) -> httpx.Response:
        return client.post(f"{BOTS}/icons/upload", files={"file": (name, content, kind)})

    @pytest.mark.parametrize(
        ("kind", "name", "media_type"),
        [
            ("PNG", "a.png", "image/png"),
            ("JPEG", "a.jpg", "image/jpeg"),
            ("WEBP", "a.webp", "image/webp"),
            ("GIF", "a.gif", "image/gif"),
        ],
    )
    def test_is_made_anew_and_served_to_everybody(
        self,
        kind: str,
        name: str,
        media_type: str,
        client: httpx.Client,
        server: Server,
        other: httpx.Client,
    ) -> None:
        sent = picture(kind, (1024, 512))
        made = self.upload(client, sent, name, media_type)
        assert made.status_code == 201, made.text
        url = made.json()["url"]
        assert url.startswith(f"{server.url}/static/icons/tenant-{server.tenant['tenant_id']}/")
        served = httpx.get(url)
        assert served.content != sent
        assert served.headers["content-type"] == "image/png"
        assert served.headers["x-content-type-options"] == "nosniff"
        assert "immutable" in served.headers["cache-control"]
        with Image.open(io.BytesIO(served.content)) as shown:
            assert (shown.format, shown.size) == ("PNG", (512, 256))
        assert url in [icon["url"] for icon in client.get(f"{BOTS}/icons").json()["results"]]
        assert url not in [icon["url"] for icon in other.get(f"{BOTS}/icons").json()["results"]]

    def test_metadata_does_not_come_along(self, client: httpx.Client) -> None:
        exif = Image.Exif()
        exif[0x010E] = "where I live"
        url = self.upload(client, picture("JPEG", exif=exif), "a.jpg", "image/jpeg").json()["url"]
        assert b"where I live" not in httpx.get(url).content

    @pytest.mark.parametrize(
        ("content", "name", "media_type"),
        [
            pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "a.svg", "image/svg+xml", id="svg"),
            pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "a.png", "image/png", id="svg-as-png"),
            pytest.param(picture("JPEG"), "a.png", "image/png", id="jpeg-as-png"),
            pytest.param(picture("PNG"), "a.html", "image/png", id="png-as-html"),
            pytest.param(picture("PNG"), "a.png", "text/html", id="png-typed-html"),
            pytest.param(picture("BMP"), "a.bmp", "image/bmp", id="bmp"),
            pytest.param(picture("PNG") + b"PK\x03\x04", "a.png", "image/png", id="png-and-zip"),
            pytest.param(picture("PNG") + b"x", "a.png", "image/png", id="png-and-more"),
            pytest.param(picture("GIF") + b"*/=1;", "a.gif", "image/gif", id="gif-and-script"),
            pytest.param(picture("JPEG") + picture("JPEG"), "a.jpg", "image/jpeg", id="two-jpegs"),
            pytest.param(
                picture("JPEG", comment="<script>1</script>"), "a.jpg", "image/jpeg", id="jpeg-with-markup"
            ),
            pytest.param(picture("WEBP") + b"x", "a.webp", "image/webp", id="webp-and-more"),
            *(
                pytest.param(picture(kind)[:-20], f"a.{suffix}", f"image/{suffix}", id=f"cut-{suffix}")
                for kind, suffix in (("PNG", "png"), ("JPEG", "jpeg"), ("WEBP", "webp"), ("GIF", "gif"))
            ),
            pytest.param(b"", "a.png", "image/png", id="nothing"),
        ],
    )
    def test_anything_else_is_refused(
        self, content: bytes, name: str, media_type: str, client: httpx.Client
    ) -> None:
        response = self.upload(client, content, name, media_type)
        assert response.status_code == 422, response.text
        assert response.json()["errors"][0]["pointer"] == "/file"

    @pytest.mark.parametrize("side", [5_000, 20_000])
    def test_too_many_pixels_are_refused(self, side: int, client: httpx.Client) -> None:
        response = self.upload(client, picture("PNG", (side, side), "L"), "a.png", "image/png")
        assert response.status_code == 422, response.text
        assert response.json()["errors"][0]["pointer"] == "/file"

    def test_too_many_bytes_are_413(self, client: httpx.Client) -> None:
        response = self.upload(client, b"\x89PNG\r\n\x1a\n" + bytes(2_200_000), "a.png", "image/png")
        assert response.status_code == 413

    def test_the_shared_ones_can_be_loaded(self, client: httpx.Client, server: Server) -> None:
        first = client.get(f"{BOTS}/icons", params={"page_size": 2}).json()
        assert first["count"] >= 4
        assert first["next"]
        assert all(icon["shared"] for icon in first["results"])
        for icon in first["results"]:
            served = httpx.get(icon["url"])
            assert served.status_code == 200
            assert served.headers["content-type"] == "image/png"

    @pytest.mark.parametrize(
        "path", ["bots/nothing.png", "bots/__init__.py", "icons/tenant-x/a.png", "bots/..%2F__init__.py"]
    )
    def test_nothing_else_is_there(self, path: str, server: Server) -> None:
        assert httpx.get(f"{server.url}/static/{path}").status_code == 404
