"""The documentation pages as a person meets them: headless Chromium against the running server."""

import json
import shutil
from collections.abc import Iterator
from typing import Any, Protocol
from urllib.parse import urlsplit

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.expected_conditions import element_to_be_clickable
from selenium.webdriver.support.wait import WebDriverWait

pytestmark = pytest.mark.browser

PATIENCE = 30  # seconds for what a page does by itself; a whole document is parsed in the browser


class Server(Protocol):
    url: str
    api_key: str


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """Debian's Chromium, with none of its own traffic, telling what it logged and fetched."""
    driver = shutil.which("chromedriver")
    chromium = shutil.which("chromium")
    assert driver, "the browser tests need Debian's packages chromium and chromium-driver"
    assert chromium, "the browser tests need Debian's package chromium"
    options = ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "--headless",
        "--no-sandbox",  # CI runs as root, where Chromium's sandbox does not start
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=1400,1000",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with Chrome(options=options, service=Service(executable_path=driver)) as chrome:
        yield chrome


@pytest.fixture
def page(browser: Chrome, live_server: Server) -> Iterator["Page"]:
    """A fresh page; when the test is over, nothing may have gone wrong or gone out."""
    page = Page(browser, live_server.url)
    everything = {"origin": live_server.url, "storageTypes": "all"}
    browser.execute_cdp_cmd("Storage.clearDataForOrigin", everything)  # a key that was kept, too
    page.logs()
    yield page
    hosts, complaints = page.logs()
    assert complaints == []
    assert hosts == {urlsplit(live_server.url).netloc}


class Page:
    """What the tests do with the browser, in the words of the one who sits before it."""

    def __init__(self, chrome: Chrome, origin: str) -> None:
        self.chrome = chrome
        self.origin = origin
        self.wait = WebDriverWait(chrome, PATIENCE)

    def open(self, path: str) -> None:
        self.chrome.get(self.origin + path)

    def see(self, css: str) -> WebElement:
        found: WebElement = self.wait.until(lambda chrome: chrome.find_element(By.CSS_SELECTOR, css))
        return found

    def see_many(self, selector: str, number: int) -> None:
        """Wait until there are exactly so many: long pages are written piece by piece."""
        WebDriverWait(self.chrome, 60).until(lambda _: self.count(selector) == number)

    def count(self, css: str) -> int:
        return len(self.chrome.find_elements(By.CSS_SELECTOR, css))

    def click(self, css: str) -> None:
        # By script: a sticky bar may lie over the middle of an element that is there to be clicked.
        self.chrome.execute_script("arguments[0].click()", self.wait.until(clickable(css)))

    def try_out(self, tag: str, operation: str, body: Any = None, **parameters: str) -> Any:
        """Fill in an operation's form, send it, and read the answer off the page."""
        self.chrome.get("about:blank")  # a change behind the # alone would load nothing anew
        self.open(f"/docs#/{tag}/{operation}")
        block = ".opblock.is-open"  # the one that the address names
        self.see(block)
        if self.count(f"{block} .try-out__btn:not(.cancel)"):
            self.click(f"{block} .try-out__btn:not(.cancel)")
        for name, value in parameters.items():
            self.fill(f"{block} tr[data-param-name='{name}'] input", value)
        if body is not None:
            self.fill(f"{block} .body-param textarea", json.dumps(body))
        self.click(f"{block} button.execute")
        shown = self.see(f"{block} .live-responses-table .response-col_description .highlight-code code")
        return json.loads(shown.text)

    def fill(self, css: str, value: str) -> None:
        """Write over what stands in a field, as pasting does."""
        field = self.wait.until(clickable(css))
        self.chrome.execute_script("arguments[0].scrollIntoView({block: 'center'})", field)
        field.send_keys(Keys.CONTROL, "a")
        self.chrome.execute_cdp_cmd("Input.insertText", {"text": value})
        self.wait.until(lambda _: field.get_property("value") == value)

    def logs(self) -> tuple[set[str], list[str]]:
        """The hosts asked and the console's complaints since the last call."""
        hosts = set()
        for entry in self.chrome.get_log("performance"):
            event: dict[str, Any] = json.loads(entry["message"])["message"]
            if event["method"] in ("Network.requestWillBeSent", "Network.webSocketCreated"):
                parameters = event["params"]
                address = urlsplit(parameters.get("request", parameters)["url"])
                if address.scheme in ("http", "https", "ws", "wss"):
                    hosts.add(address.netloc)
        # What the page's policy refuses is logged as severe.
        complaints = [
            entry["message"] for entry in self.chrome.get_log("browser") if entry["level"] == "SEVERE"
        ]
        return hosts, complaints


def clickable(css: str) -> Any:
    return element_to_be_clickable((By.CSS_SELECTOR, css))


def operations(document: dict[str, Any]) -> int:
    methods = {"get", "put", "post", "delete", "patch", "head", "options", "trace"}
    return sum(len(methods & item.keys()) for item in document["paths"].values())


@pytest.fixture
def document(page: Page) -> dict[str, Any]:
    """The OpenAPI document as the pages themselves get it."""
    page.open("/docs")
    loaded: dict[str, Any] = page.chrome.execute_async_script(
        "fetch('/openapi.json').then(answer => answer.json()).then(arguments[0])"
    )
    return loaded


def test_swagger_ui_shows_every_operation(page: Page, document: dict[str, Any]) -> None:
    page.open("/docs")
    page.see_many(".opblock", operations(document))
    assert page.count(".errors-wrapper") == 0


def test_authorised_operation_can_be_tried_out(
    page: Page, document: dict[str, Any], live_server: Server
) -> None:
    page.open("/docs")
    page.click("button.authorize")
    page.see("#api_key_value").send_keys(live_server.api_key)
    page.click("form:has(#api_key_value) button[type=submit]")
    page.click("button.close-modal")

    # Loaded anew at the operation's own address: the key is still there, the operation unfolded.
    tag = document["paths"]["/api/v1/chat/personas"]["get"]["tags"][0]
    page.open(f"/docs#/{tag}/personas.list")
    page.chrome.refresh()
    operation = ".opblock-get.is-open"
    page.click(f"{operation} button.execute")
    status = page.see(f"{operation} .live-responses-table tr.response td.response-col_status")
    assert status.text.split()[0] == "200"


def test_a_new_user_makes_a_persona_asks_and_reads_the_answer(page: Page, live_server: Server) -> None:
    page.open("/docs")
    page.click("button.authorize")
    page.see("#api_key_value").send_keys(live_server.api_key)
    page.click("form:has(#api_key_value) button[type=submit]")
    page.click("button.close-modal")

    listed = page.try_out("Personas", "personas.list")
    stack_id = listed["results"][0]["stack_id"]
    persona = page.try_out("Personas", "personas.create", {"name": "A new user's", "stack_id": stack_id})
    session = page.try_out("Sessions", "sessions.create", {"persona_id": persona["id"]})
    question = {"content": "What was revenue in 2025?"}
    reply = page.try_out("Sessions", "messages.send", question, id=session["id"])
    assert reply["status"] == "complete"
    assert reply["content"]


def test_redoc_shows_every_operation_and_searches_them(page: Page, document: dict[str, Any]) -> None:
    page.open("/redoc")
    page.see("#api [data-section-id]")
    # Redoc shows the events of webhooks as operations, too.
    shown = operations(document) + len(document.get("x-webhooks", {}))
    page.see_many("[data-section-id^='tag/'][data-section-id*='operation/']", shown)
    page.see("input[aria-label='Search']").send_keys("persona")
    page.see("[data-role='search:results'] li")
