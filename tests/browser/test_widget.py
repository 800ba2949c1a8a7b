"""The widget as a visitor of somebody's site meets it: headless Chromium, the site on a port of its own."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from tests.browser.test_docs_pages import Page, browser
from tests.servers import Server

__all__ = ["browser"]
pytestmark = pytest.mark.browser
PICTURED = "return document.querySelector('h1 img').naturalWidth > 0"
MORE = 50
"""Questions more than one page of messages holds."""
HOSTILE = "What was <img src=x onerror=alert(1)> revenue?"


@contextmanager
def site() -> Iterator[tuple[str, Callable[[str], None]]]:
    """Somebody's site: its origin, and what writes its one page."""
    body = b""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    def write(code: str) -> None:
        nonlocal body
        head = '<!doctype html><link rel="icon" href="data:,"><title>Somebody\'s site</title>'
        body = f"{head}<body><p>Welcome.</p>{code}</body>".encode()

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}", write
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    """The tenant's owner."""
    with httpx.Client(base_url=server.url, headers={"X-API-Key": server.api_key}) as client:
        yield client


def code_of(client: httpx.Client, origin: str) -> dict[str, str]:
    """The embed code of a new bot for the site."""
    persona = client.get("/api/v1/chat/personas").json()["results"][0]["id"]
    icon = client.get("/api/v1/chat/bots/icons").json()["results"][0]
    body = {
        "name": "Desk",
        "persona_id": persona,
        "allowed_origins": [origin],
        "greeting": "Ask me.",
        "suggested_questions": ["Who audits?"],
        "icon_url": icon["url"],
        "rate_limit_per_minute": 600,
    }
    bot = client.post("/api/v1/chat/bots", json=body)
    assert bot.status_code == 201, bot.text
    code: dict[str, str] = client.get(f"/api/v1/chat/bots/{bot.json()['id']}/embed-code").json()
    return code


def say_more(browser: Chrome, server: Server) -> None:
    """Go on with the conversation of the page, behind its back."""
    key, visit = browser.execute_script("return Object.entries(sessionStorage)[0]")
    told = json.loads(visit)
    headers = {"Authorization": f"Bearer {told['token']}", "Origin": server.url}
    with httpx.Client(base_url=server.url, headers=headers, timeout=30) as visitor:
        for _ in range(MORE):
            asked = visitor.post(f"{key}/sessions/{told['session']}/messages", json={"content": "And then?"})
            asked.raise_for_status()


def said(page: Page) -> list[str]:
    return [found.text for found in page.chrome.find_elements(By.CSS_SELECTOR, "article > p:first-child")]


def test_a_visitor_asks_by_the_widget_and_goes_on_after_a_reload(
    browser: Chrome, client: httpx.Client, server: Server
) -> None:
    with site() as (origin, write):
        write(code_of(client, origin)["script"])
        page = Page(browser, origin)
        page.logs()
        page.open("/")
        page.click("button[aria-expanded=false]")
        browser.switch_to.frame(page.see("iframe"))
        page.see("article.assistant")
        assert said(page) == ["Ask me."]
        page.see("textarea").send_keys(HOSTILE)
        page.click("form button")
        page.wait.until(lambda _: page.count("article[aria-busy]") == 0 and page.count("article") == 3)
        greeting, question, answer = said(page)
        assert (greeting, question) == ("Ask me.", HOSTILE)
        assert answer
        assert page.count("article img") == 0
        page.click("button.rating")
        page.see("button.rating[aria-pressed=true]")

        page.open("/")
        page.click("button[aria-expanded=false]")
        browser.switch_to.frame(page.see("iframe"))
        page.wait.until(lambda _: len(said(page)) == 3)
        assert said(page) == [greeting, question, answer]
        page.see("button.rating[aria-pressed=true]")
        page.wait.until(lambda _: browser.execute_script(PICTURED))

        say_more(browser, server)
        page.open("/")
        page.click("button[aria-expanded=false]")
        browser.switch_to.frame(page.see("iframe"))
        page.wait.until(lambda _: len(said(page)) == 3 + 2 * MORE)
        hosts, complaints = page.logs()
        assert complaints == []
        assert hosts == {urlsplit(origin).netloc, urlsplit(server.url).netloc}


def test_on_another_site_there_is_no_button_and_no_frame(browser: Chrome, client: httpx.Client) -> None:
    with site() as (origin, _), site() as (elsewhere, write):
        code = code_of(client, origin)
        write(code["script"] + code["iframe"].replace(' loading="lazy"', ""))
        page = Page(browser, elsewhere)
        page.logs()
        page.open("/")
        complaints: list[str] = []

        def both_were_refused(_: Chrome) -> bool:
            complaints.extend(page.logs()[1])
            return len(complaints) >= 2

        page.wait.until(both_were_refused)
        assert any("frame-ancestors" in complaint for complaint in complaints)
        assert page.count("button") == 0
        browser.switch_to.frame(page.see("iframe"))
        assert page.count("main") == 0
    browser.switch_to.default_content()
    browser.get("about:blank")
    Page(browser, elsewhere).logs()
