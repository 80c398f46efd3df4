"""Our HTTP client: time-outs, back-pressure, TLS and what it does with connections."""

import asyncio
import ipaddress
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from openclaw_web.core.errors import VendorError
from openclaw_web.integrations import upstream as client
from openclaw_web.integrations.upstream import TimeOuts, Upstream
from tests.gateway.upstream_server import chunk, raw, serving, stream, whole


@pytest.fixture
async def server():
    async with serving() as running:
        yield running


@pytest.fixture
async def pool(server):
    made = Upstream(server.url, time_outs=TimeOuts(connect=1, first_byte=0.2, idle=0.2))
    yield made
    await made.close()


async def silent(_, __):
    await asyncio.sleep(5)


async def test_a_provider_that_never_answers_times_out(server, pool):
    server.will(silent)
    with pytest.raises(VendorError) as failed:
        await pool.post("/x", b"{}", [])
    assert (failed.value.code, failed.value.can_retry) == ("timeout", True)


async def test_a_stream_that_stands_still_times_out_after_what_it_gave(server, pool):
    server.will(stream(chunk("a"), chunk("b"), before=asyncio.Event()))
    answer = await pool.post("/x", b"{}", [])
    parts = answer.parts()
    assert await anext(parts) == chunk("a")
    with pytest.raises(VendorError, match="stopped answering"):
        await anext(parts)


async def test_a_fast_provider_is_held_back_by_a_slow_reader(server, pool):
    sent = []

    async def flood(_, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n")
        for _ in range(1024):
            writer.write(b"x" * 65536)
            sent.append(65536)
            await writer.drain()

    server.will(flood)
    answer = await pool.post("/x", b"{}", [])
    await asyncio.sleep(0.1)
    assert sum(sent) < 40 * 1024 * 1024, "what the kernel and we hold, not all of it"
    assert answer.waiting_bytes < 2 * client.HIGH_WATER_BYTES
    assert len(await answer.read()) == 67108864


async def test_an_abandoned_answer_costs_its_connection_a_finished_one_does_not(server, pool):
    for _ in range(3):
        await (await pool.post("/x", b"{}", [])).read()
    assert server.connections == 1
    server.will(stream(chunk("a"), chunk("b"), before=asyncio.Event()))
    (await pool.post("/x", b"{}", [])).abort()
    await (await pool.post("/x", b"{}", [])).read()
    assert server.connections == 2


async def test_a_connection_that_says_more_than_it_was_asked_is_not_used_again(server, pool):
    server.will(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\n\r\n"))
    assert await (await pool.post("/x", b"{}", [])).read() == b"{}"
    assert await (await pool.post("/x", b"{}", [])).read() != b"{}"
    assert server.connections == 2


async def test_a_connection_that_dies_midway_is_not_tried_again(server, pool):
    await (await pool.post("/x", b"{}", [])).read()
    server.will(raw(b"HTTP/1.1 200 OK\r\nContent-"))
    with pytest.raises(VendorError):
        await pool.post("/x", b"{}", [])
    assert len(server.seen) == 2


async def test_tls_is_spoken_and_certificates_are_checked(server, tmp_path, monkeypatch):
    certificate = make_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    tls = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context)
    url = f"https://127.0.0.1:{tls.sockets[0].getsockname()[1]}/v1"
    distrustful = Upstream(url)
    with pytest.raises(VendorError, match="cannot be reached"):
        await distrustful.post("/x", b"{}", [])
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    trusting = Upstream(url)
    server.will(whole(b"{}"))
    assert await (await trusting.post("/x", b"{}", [])).read() == b"{}"
    await trusting.close()
    tls.close()
    await tls.wait_closed()


def make_certificate(folder):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path
