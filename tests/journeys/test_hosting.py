"""The proxy of docs/hosting.md, exactly as it stands there but for its ports and paths, before a server."""

from __future__ import annotations

import datetime
import ipaddress
import re
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests import backends, canary, ears
from tests.backends import Backend, answers, free_port
from tests.events import events
from tests.fakes.provider import FakeProvider
from tests.handlers.knowledge import make, upload
from tests.journeys.demo import ROOT
from tests.servers import Server, running

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin")
UP_WITHIN = 10.0
pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of loopback's own, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "chat.example.com")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    pem, private = folder / "chat.pem", folder / "chat.key"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return pem, private


@pytest.fixture(scope="module")
def behind(
    backend: Backend, fake_provider: FakeProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server with a provider, which believes the proxy."""
    given = {"OPENAI_BASE_URL": fake_provider.base_url, "OPENAI_API_KEY": "sk-test"}
    with running(tmp_path_factory.mktemp("hosted"), backend.name, {**backend.fresh(), **given}) as made:
        yield made


@pytest.fixture(scope="module")
def proxied(behind: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The owner, who comes by the proxy."""
    if NGINX is None:
        backends.left_out["nginx"] = "it is not installed"
        pytest.skip("nginx is not installed")
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    pem, private = certificate(folder)
    (block,) = re.findall(r"^```nginx\n(.*?)^```$", (ROOT / "docs/hosting.md").read_text(), re.M | re.S)
    for told, here in {
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "/etc/ssl/chat.example.com.pem": str(pem),
        "/etc/ssl/chat.example.com.key": str(private),
        "http://127.0.0.1:8000": behind.url,
    }.items():
        assert block.count(told) == 1
        block = block.replace(told, here)
    kept = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off;\npid {folder}/pid;\nerror_log {folder}/error.log;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{kept}{block}}}\n"
    )
    process = subprocess.Popen([NGINX, "-p", str(folder), "-c", str(config), "-e", f"{folder}/error.log"])  # noqa: S603 - a program of the system's, our own file
    try:
        deadline = time.monotonic() + UP_WITHIN
        while not answers(port):
            assert process.poll() is None, (folder / "error.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)  # it is still starting
        with httpx.Client(
            base_url=f"https://127.0.0.1:{port}",
            headers={"X-API-Key": behind.api_key, "X-Forwarded-For": "203.0.113.9"},
            verify=ssl.create_default_context(cafile=str(pem)),
            timeout=30,
        ) as client:
            yield client
    finally:
        process.terminate()
        process.wait(10)


def test_streams_are_handed_on_at_once(proxied: httpx.Client, fake_provider: FakeProvider) -> None:
    fake_provider.forget()
    fake_provider.when("Held back", tokens=4, hang=2)
    session = proxied.post("/api/v1/chat/sessions", json={}).raise_for_status().json()
    path = f"/api/v1/chat/sessions/{session['id']}"
    with proxied.stream("POST", f"{path}/messages/stream", json={"content": "Held back?"}) as answer:
        told = events(answer.iter_lines())
        # The provider says no more: what it said so far would stay in a proxy that gathers.
        assert next(event for event in told if event.name == "message.delta").data["text"]
        proxied.post(f"{path}/stop").raise_for_status()
        assert [*told][-1].data["status"] == "stopped"


def test_uploads_pass_up_to_the_servers_own_limit(proxied: httpx.Client) -> None:
    index = make(proxied, "indices")["id"]
    small, large = (
        upload(proxied, index, b"A line of a report.\n" * (size << 20 >> 4), "report.txt").status_code
        for size in (4, 60)
    )
    assert (small, large) == (201, 413)


def test_links_and_addresses_are_right(proxied: httpx.Client, behind: Server) -> None:
    told = proxied.get("/api/v1/chat", headers={"Host": "evil.example"}).json()
    assert all(url.startswith(f"{behind.url}/api/v1/chat/") for url in told.values())
    proxied.post("/api/v1/tenants/organizations", json={"name": "Seen from afar"}).raise_for_status()
    entry = proxied.get("/api/v1/tenants/audit-log", params={"page_size": 1}).json()["results"][0]
    assert (entry["object_type"], entry["address"]) == ("organization", "127.0.0.1")  # not the forged one


def test_metrics_stay_at_home(proxied: httpx.Client, behind: Server) -> None:
    assert proxied.get("/metrics").status_code == 403
    assert httpx.get(f"{behind.url}/metrics").status_code == 200


def test_what_comes_by_tls_is_heard(proxied: httpx.Client, behind: Server) -> None:
    leaked = {"X-API-Key": behind.issue_key(tenant=behind.canary)}
    proxied.get("/api/v1/chat/personas", headers=leaked).raise_for_status()
    with pytest.raises(canary.Heard, match=canary.WORD):
        ears.check()
