"""The documentation pages and their files, without a browser."""

import subprocess
import sys
from html.parser import HTMLParser

import pytest
from flask import Flask
from flask.testing import FlaskClient

from handlers.pages import pages
from handlers.pages.assets import SERVED, asset


@pytest.fixture
def client() -> FlaskClient:
    app = Flask(__name__)
    app.register_blueprint(pages)
    return app.test_client()


class Page(HTMLParser):
    """What a page loads, and what it would run by itself."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.inline: list[str] = []
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        named = dict(attributes)
        if tag in ("script", "link", "img"):
            self.loaded.append(named.get("src") or named.get("href") or "")
        self.inline += [name for name in named if name.startswith("on") or name == "style"]

    def handle_data(self, data: str) -> None:
        if self._inside in ("script", "style") and data.strip():
            self.inline.append(data)


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
class TestPage:
    def test_loads_only_its_own_files_and_all_are_there(self, client: FlaskClient, path: str) -> None:
        answer = client.get(path)
        assert answer.status_code == 200
        assert answer.mimetype == "text/html"
        page = Page(answer.text)
        assert page.inline == []
        assert len(page.loaded) >= 4
        for address in page.loaded:
            assert address.startswith("/static/docs/")
            file = client.get(address)
            assert file.status_code == 200
            assert file.headers["Cache-Control"] == "public, max-age=31536000, immutable"

    def test_says_what_it_may_do(self, client: FlaskClient, path: str) -> None:
        headers = client.get(path).headers
        policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == "'self'"
        assert policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == "'none'"
        assert "http" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"

    def test_is_the_same_with_a_trailing_slash(self, client: FlaskClient, path: str) -> None:
        assert client.get(f"{path}/").data == client.get(path).data

    def test_is_checked_again_each_time(self, client: FlaskClient, path: str) -> None:
        assert client.get(path).headers["Cache-Control"] == "no-cache"


class TestFile:
    @pytest.mark.parametrize("name", SERVED)
    def test_is_served_as_what_it_is(self, client: FlaskClient, name: str) -> None:
        answer = client.get(f"/static/docs/{name}")
        assert answer.status_code == 200
        assert answer.content_type == SERVED[name][2]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.data == asset(name).content

    def test_is_kept_only_under_its_digest(self, client: FlaskClient) -> None:
        assert client.get("/static/docs/page.css").headers["Cache-Control"] == "no-cache"
        assert client.get("/static/docs/page.css?v=0").headers["Cache-Control"] == "no-cache"

    def test_is_not_sent_again_unchanged(self, client: FlaskClient) -> None:
        tag = client.get("/static/docs/page.css").headers["ETag"]
        again = client.get("/static/docs/page.css", headers={"If-None-Match": tag})
        assert again.status_code == 304
        assert again.data == b""

    @pytest.mark.parametrize(
        "name", ["swagger-ui-bundle.js.map", "oauth2-redirect.html", "..%2fassets.py", "%2e%2e/docs.py"]
    )
    def test_nothing_else_is_served(self, client: FlaskClient, name: str) -> None:
        assert client.get(f"/static/docs/{name}").status_code == 404

    def test_redoc_asks_no_other_host_for_its_picture(self) -> None:
        assert b"cdn.redoc" not in asset("redoc.standalone.js").content


def test_reading_the_files_imports_no_django() -> None:
    """In a process of its own: whether an earlier test imported it must not matter."""
    code = """
import sys
from handlers.pages.assets import SERVED, asset
assert all(asset(name).content for name in SERVED)
assert not {"django", "drf_spectacular_sidecar"} & sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)  # noqa: S603 - our own code
    assert done.returncode == 0, done.stderr
