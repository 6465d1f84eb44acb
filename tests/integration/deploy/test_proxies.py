"""The proxies of docs/how-to/deploy.md, in front of the gateway as docker-compose.yml runs it."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme
from deployment import ROOT, find_tool
from lychee_server.processes import pick_free_ports

from .conftest import HOST
from .service_processes import START_TIMEOUT_S, ServiceProcess, ServiceProcesses

pytestmark = pytest.mark.triton

NAME = "rerank.example.org"
NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {servers}
}}
"""
CADDY_OPTIONS = "{\n\tadmin off\n\tauto_https disable_redirects\n}\n"


@pytest.fixture
def authority() -> trustme.CA:
    """Return an authority of the test's own."""
    return trustme.CA()


@pytest.fixture
def certificate(authority: trustme.CA, tmp_path: Path) -> tuple[Path, Path]:
    """Return the proxy's certificate and its key."""
    issued = authority.issue_cert(NAME)
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(key))
    return chain, key


@pytest.fixture(params=["nginx", "caddyfile"])
def proxied(
    request: pytest.FixtureRequest,
    gateway_url: str,
    authority: trustme.CA,
    certificate: tuple[Path, Path],
    processes: ServiceProcesses,
    tmp_path: Path,
) -> Iterator[Connection]:
    """Connect to the gateway through a proxy with the configuration that the page shows."""
    text = (ROOT / "docs" / "how-to" / "deploy.md").read_text(encoding="utf-8")
    (shown,) = re.findall(rf"```{request.param}\n(.*?)```", text, re.DOTALL)
    (port,) = pick_free_ports(HOST, 1)
    chain, key = certificate
    config = tmp_path / request.param
    configure = write_nginx if request.param == "nginx" else write_caddy
    written = configure(shown.replace("127.0.0.1:7860", urlsplit(gateway_url).netloc), port, chain, key, tmp_path)
    config.write_text(written, encoding="utf-8")
    if request.param == "nginx":
        proxy = processes.start([find_tool("nginx"), "-p", tmp_path, "-c", config, "-e", "stderr"])
    else:
        homes = {name: str(tmp_path) for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
        proxy = processes.start([find_tool("caddy"), "run", "--config", config, "--adapter", "caddyfile"], homes)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    connection = Connection(context, port)
    connection.wait_until_open(proxy)
    yield connection
    connection.close()


def write_nginx(shown: str, port: int, chain: Path, key: Path, folder: Path) -> str:
    """Return a whole configuration with the server that is shown, on this port."""
    servers = (
        shown.replace("listen 443", f"listen {HOST}:{port}")
        .replace(f"/etc/ssl/{NAME}.pem", str(chain))
        .replace(f"/etc/ssl/{NAME}.key", str(key))
    )
    user = "user root;" if os.getuid() == 0 else ""
    return user + NGINX.format(folder=folder, servers=servers)


def write_caddy(shown: str, port: int, chain: Path, key: Path, folder: Path) -> str:
    """Return the site that is shown with a certificate of ours, on this port."""
    return CADDY_OPTIONS + shown.replace(f"{NAME} {{", f"https://{NAME}:{port} {{\n\tbind {HOST}\n\ttls {chain} {key}")


class Connection(http.client.HTTPSConnection):
    """A connection to this machine that asks for the proxy's name."""

    def __init__(self, context: ssl.SSLContext, port: int) -> None:
        super().__init__(NAME, port, timeout=START_TIMEOUT_S, context=context)
        self._tls = context

    def connect(self) -> None:
        """See http.client."""
        plain = socket.create_connection((HOST, self.port), START_TIMEOUT_S)
        self.sock = self._tls.wrap_socket(plain, server_hostname=NAME)

    def wait_until_open(self, proxy: ServiceProcess) -> None:
        """Wait until the proxy listens; fail when it ends or the time is up."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                socket.create_connection((HOST, self.port), START_TIMEOUT_S).close()
            except OSError:
                assert proxy.process.poll() is None, proxy.log
                assert time.monotonic() < deadline, proxy.log
                time.sleep(0.02)
            else:
                return

    def ask(self, method: str, path: str, body: bytes | None = None) -> http.client.HTTPResponse:
        """Send a request on a connection of its own."""
        self.close()
        self.request(method, path, body, {"content-type": "application/json"} if body else {})
        return self.getresponse()


def test_page_and_calls_pass(proxied: Connection, photos: Path) -> None:
    assert proxied.ask("GET", "/health/ready").status == 200
    assert b"page/shell/app.js" in proxied.ask("GET", "/").read()
    photo = "data:image/jpeg;base64," + base64.b64encode((photos / "cat.jpg").read_bytes()).decode()
    body = json.dumps({"query": "a cat", "documents": [{"image": photo}] * 100}).encode()
    assert len(body) > 2**21  # beyond what proxies admit by default
    answer = proxied.ask("POST", "/v1/rerank", body)
    content = answer.read()
    assert answer.status == 200, content
    assert len(json.loads(content)["results"]) == 100


def test_metrics_stay_inside(proxied: Connection) -> None:
    assert proxied.ask("GET", "/metrics").status == 404
