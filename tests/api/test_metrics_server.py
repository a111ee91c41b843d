"""The metrics page over real sockets."""

import asyncio
import socket
import ssl
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.error import HTTPError, URLError

import pytest

from gateway.api.address import TlsFiles
from gateway.controller.facade import ChildSaStatus
from gateway.web import page_server
from gateway.web import server as web
from gateway.web.server import HttpsFiles, MetricsServer, WebError
from tests.api.certificates import Authority
from tests.api.fake_controller import FakeController


@pytest.fixture
async def page() -> AsyncIterator[str]:
    server = MetricsServer(FakeController(), "127.0.0.1", 0)
    server.start()
    yield f"http://127.0.0.1:{server.port}/metrics"
    await server.stop()


async def get(url: str, *, accept: str = "", context: ssl.SSLContext | None = None) -> tuple[str, str]:
    """Return content type and body."""

    def fetch() -> tuple[str, str]:
        request = urllib.request.Request(url, headers={"Accept": accept} if accept else {})
        with urllib.request.urlopen(request, timeout=30, context=context) as answer:
            return answer.headers["Content-Type"], answer.read().decode()

    return await asyncio.to_thread(fetch)


async def test_the_page_is_openmetrics_for_who_asks_for_it(page: str) -> None:
    content_type, body = await get(page, accept="application/openmetrics-text; version=1.0.0")

    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith("# EOF\n")
    assert "gw_ike_sas 2.0\n" in body


async def test_the_page_is_plain_text_otherwise(page: str) -> None:
    content_type, body = await get(page)

    assert content_type.startswith("text/plain")
    assert "gw_datapath_up 0.0\n" in body


async def test_a_controller_that_does_not_answer_fails_the_scrape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "READ_TIMEOUT_S", 0.05)

    class Stuck(FakeController):
        async def child_sas(self) -> tuple[ChildSaStatus, ...]:
            await asyncio.Event().wait()
            return ()

    server = MetricsServer(Stuck(), "127.0.0.1", 0)
    server.start()
    try:
        with pytest.raises(HTTPError) as refused:
            await get(f"http://127.0.0.1:{server.port}/metrics")
    finally:
        await server.stop()

    assert refused.value.code == 500


async def test_a_port_that_is_taken_is_named(page: str) -> None:
    port = int(page.split(":")[2].split("/", maxsplit=1)[0])

    with pytest.raises(WebError, match=f"127.0.0.1 port {port}: another process listens there"):
        MetricsServer(FakeController(), "127.0.0.1", port).start()


async def test_what_others_could_read_needs_certificates() -> None:
    with pytest.raises(WebError, match="readable by everybody"):
        MetricsServer(FakeController(), "0.0.0.0", 0).start()


def client_context(files: TlsFiles | None, ca: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(ca))
    if files is not None:
        context.load_cert_chain(files.certificate, files.key)
    return context


async def test_https_serves_those_with_a_certificate_of_the_ca_and_nobody_else(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    files = ours.sign("server")
    https = HttpsFiles(certificate=files.certificate, key=files.key, ca=files.ca)
    server = MetricsServer(FakeController(), "127.0.0.1", 0, https=https)
    server.start()
    url = f"https://127.0.0.1:{server.port}/metrics"
    try:
        _, body = await get(url, context=client_context(ours.sign("reader"), ours.certificate))
        assert "gw_ike_sas" in body
        for stranger in (None, theirs.sign("stranger")):
            with pytest.raises((URLError, ssl.SSLError, ConnectionError)):
                await get(url, context=client_context(stranger, ours.certificate))
    finally:
        await server.stop()


async def test_who_says_nothing_keeps_nobody_waiting(tmp_path: Path) -> None:
    ours = Authority(tmp_path, "ours")
    files = ours.sign("server")
    https = HttpsFiles(certificate=files.certificate, key=files.key, ca=files.ca)
    server = MetricsServer(FakeController(), "127.0.0.1", 0, https=https)
    server.start()
    try:
        silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(5)]
        url = f"https://127.0.0.1:{server.port}/metrics"
        _, body = await get(url, context=client_context(ours.sign("reader"), ours.certificate))
        for connection in silent:
            connection.close()
    finally:
        await server.stop()

    assert "gw_ike_sas" in body


async def test_no_more_than_so_many_are_heard_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_server, "MAX_CLIENTS", 2)
    server = MetricsServer(FakeController(), "127.0.0.1", 0)
    server.start()
    url = f"http://127.0.0.1:{server.port}/metrics"
    try:
        held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(2)]
        with pytest.raises((URLError, ConnectionError)):
            await get(url)
        for connection in held:
            connection.close()
        body = await eventually_get(url)
    finally:
        await server.stop()

    assert "gw_ike_sas" in body


async def eventually_get(url: str) -> str:
    """Return the page as soon as there is room again."""
    async with asyncio.timeout(30):
        while True:
            try:
                _, body = await get(url)
            except (URLError, ConnectionError):
                await asyncio.sleep(0.02)
            else:
                return body


async def test_a_client_that_says_nothing_for_long_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_server, "SILENCE_S", 0.05)
    server = MetricsServer(FakeController(), "127.0.0.1", 0)
    server.start()
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as silent:
            said = await asyncio.to_thread(silent.recv, 1)
    finally:
        await server.stop()

    assert said == b""


async def test_replaced_certificates_count_from_the_next_connection_on(tmp_path: Path) -> None:
    ours, new = Authority(tmp_path, "ours"), Authority(tmp_path, "new")
    files, reader = ours.sign("server"), new.sign("reader")
    https = HttpsFiles(certificate=files.certificate, key=files.key, ca=files.ca)
    server = MetricsServer(FakeController(), "127.0.0.1", 0, https=https)
    server.start()
    url = f"https://127.0.0.1:{server.port}/metrics"
    try:
        replaced = new.sign("replaced")
        files.key.write_bytes(b"half written")
        await get(url, context=client_context(ours.sign("reader-before"), ours.certificate))
        for old, fresh in (
            (files.certificate, replaced.certificate),
            (files.key, replaced.key),
            (files.ca, replaced.ca),
        ):
            old.write_bytes(fresh.read_bytes())
        _, body = await get(url, context=client_context(reader, new.certificate))
    finally:
        await server.stop()

    assert "gw_ike_sas" in body


async def test_certificates_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    files = Authority(tmp_path, "ours").sign("server")
    files.key.unlink()
    https = HttpsFiles(certificate=files.certificate, key=files.key, ca=files.ca)

    with pytest.raises(WebError, match="certificates of the metrics page cannot be used"):
        MetricsServer(FakeController(), "127.0.0.1", 0, https=https).start()
