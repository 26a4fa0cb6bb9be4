"""What probes and Prometheus are told over HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from forge_jobs.errors import InvalidSetting, StorageUnavailable
from forge_jobs.probes.server import HEAD_LIMIT, HealthServer, why_unanswered


class Worker:
    """Answers for a worker, as each test wants it."""

    def __init__(self) -> None:
        self.dead: str | None = None
        self.unready: str | None = None
        self.accepted: str | None = None
        self.error: Exception | None = None

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        self.accepted = accept
        if self.error is not None:
            raise self.error
        return b"forge_workers 1.0\n", "text/plain; version=0.0.4"

    async def is_ready(self) -> str | None:
        return self.unready


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
async def port(worker: Worker) -> AsyncIterator[int]:
    server = HealthServer(
        "127.0.0.1", 0, metrics=worker.metrics, is_alive=lambda: worker.dead, is_ready=worker.is_ready
    )
    yield await server.start()
    await server.stop()


async def sent(port: int, request: bytes) -> bytes:
    """Return everything that comes back until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()
        await writer.wait_closed()


async def asked(port: int, path: str, method: str = "GET", headers: str = "") -> tuple[int, str, bytes]:
    """Return status, head and body."""
    response = await sent(port, f"{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
    head, _, body = response.partition(b"\r\n\r\n")
    return int(head.split()[1]), head.decode(), body


async def test_a_living_worker_is_healthy_whether_or_not_it_is_ready(worker: Worker, port: int) -> None:
    worker.unready = "The database cannot be reached."

    status, _, body = await asked(port, "/healthz")

    assert (status, json.loads(body)) == (200, {"ok": True, "why": None})


async def test_a_worker_that_was_cut_off_is_not_healthy_and_says_why(worker: Worker, port: int) -> None:
    worker.dead = "The worker was cut off."

    status, head, body = await asked(port, "/healthz")

    assert (status, json.loads(body)) == (503, {"ok": False, "why": "The worker was cut off."})
    assert "Content-Type: application/json" in head


async def test_a_draining_worker_is_not_ready_and_says_why(worker: Worker, port: int) -> None:
    assert (await asked(port, "/readyz"))[0] == 200
    worker.unready = "The worker is draining."

    status, _, body = await asked(port, "/readyz?verbose")

    assert (status, json.loads(body)["why"]) == (503, "The worker is draining.")


async def test_metrics_come_in_the_format_that_was_asked_for(worker: Worker, port: int) -> None:
    accept = "application/openmetrics-text; version=1.0.0"

    status, head, body = await asked(port, "/metrics", headers=f"accept: {accept}\r\nAccept: text/plain\r\n")

    assert (status, body) == (200, b"forge_workers 1.0\n")
    assert worker.accepted == f"{accept},text/plain"
    assert "Content-Type: text/plain; version=0.0.4" in head
    assert "Connection: close" in head


async def test_head_says_what_get_would_without_the_body(port: int) -> None:
    got = await asked(port, "/metrics")

    status, head, body = await asked(port, "/metrics", method="HEAD")

    assert (status, head, body) == (200, got[1], b"")


async def test_another_path_is_not_found_and_another_method_not_allowed(port: int) -> None:
    assert (await asked(port, "/"))[0] == 404
    assert (await asked(port, "/metrics/x"))[0] == 404
    status, head, _ = await asked(port, "/metrics", method="POST", headers="Content-Length: 0\r\n")
    assert status == 405
    assert "Allow: GET, HEAD" in head


@pytest.mark.parametrize(
    "nonsense", [b"\r\n\r\n", b"GET /metrics\r\n\r\n", b"\x16\x03\x01\x00 HTTP/2\r\n\r\n"]
)
async def test_nonsense_is_a_bad_request(port: int, nonsense: bytes) -> None:
    assert (await sent(port, nonsense)).startswith(b"HTTP/1.1 400 ")


async def test_a_request_longer_than_allowed_is_refused(port: int) -> None:
    response = await sent(port, b"GET /metrics HTTP/1.1\r\nX: " + b"x" * (HEAD_LIMIT + 1))

    assert response.startswith(b"HTTP/1.1 431 ")


async def test_who_never_ends_its_request_is_sent_away(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forge_jobs.probes.server.PATIENCE", 0.05)

    assert (await sent(port, b"GET /metrics HT")).startswith(b"HTTP/1.1 408 ")


async def test_connections_that_are_held_open_give_way_to_a_new_one(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forge_jobs.probes.server.MAX_CONNECTIONS", 1)
    reader, held = await asyncio.open_connection("127.0.0.1", port)
    held.write(b"GET ")

    assert (await asked(port, "/healthz"))[0] == 200

    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    held.close()


async def test_a_probe_that_breaks_is_answered_and_the_program_told(worker: Worker, port: int) -> None:
    told: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, facts: told.append(facts))
    worker.error = ZeroDivisionError("secret")

    status, _, body = await asked(port, "/metrics")

    assert (status, b"secret" in body) == (500, False)
    assert told[0]["exception"] is worker.error


async def test_an_answer_that_takes_too_long_is_given_up(
    worker: Worker, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forge_jobs.probes.server.ANSWER_TIMEOUT", 0.05)

    async def never(accept: str) -> tuple[bytes, str]:
        await asyncio.Event().wait()
        raise AssertionError

    server = HealthServer("127.0.0.1", 0, metrics=never, is_alive=lambda: None, is_ready=worker.is_ready)
    port = await server.start()

    assert (await asked(port, "/metrics"))[0] == 503

    await server.stop()


async def test_stopping_closes_every_connection_and_frees_the_port(worker: Worker) -> None:
    server = HealthServer(
        "127.0.0.1", 0, metrics=worker.metrics, is_alive=lambda: None, is_ready=worker.is_ready
    )
    port = await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert (await asked(port, "/healthz"))[0] == 200

    await server.stop()

    try:
        assert await reader.read() == b""
    except ConnectionResetError:
        pass
    writer.close()
    again = HealthServer(
        "127.0.0.1", port, metrics=worker.metrics, is_alive=lambda: None, is_ready=worker.is_ready
    )
    assert await again.start() == port
    await again.stop()


async def test_a_taken_port_is_one_sentence(worker: Worker, port: int) -> None:
    second = HealthServer(
        "127.0.0.1", port, metrics=worker.metrics, is_alive=lambda: None, is_ready=worker.is_ready
    )

    with pytest.raises(
        InvalidSetting, match=rf"^--metrics-host and --metrics-port is '127.0.0.1:{port}', allowed is "
    ):
        await second.start()
    await second.stop()


async def test_a_port_that_does_not_exist_is_one_sentence(worker: Worker) -> None:
    server = HealthServer(
        "127.0.0.1", 70000, metrics=worker.metrics, is_alive=lambda: None, is_ready=worker.is_ready
    )

    with pytest.raises(
        InvalidSetting, match=r"^--metrics-port is 70000, allowed is a port from 0 \(any\) to 65535\.$"
    ):
        await server.start()


async def test_a_database_that_does_not_answer_in_time_is_said_in_one_sentence() -> None:
    async def silent() -> None:
        await asyncio.Event().wait()

    async def away() -> None:
        raise StorageUnavailable("could not connect to user:secret@host")

    async def there() -> None:
        return None

    assert await why_unanswered(silent, within=0.01) == "The database did not answer within 0.01 s."
    assert await why_unanswered(away) == "The database cannot be reached."
    assert await why_unanswered(there) is None
