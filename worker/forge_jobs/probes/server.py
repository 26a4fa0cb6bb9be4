"""Answer /metrics, /healthz and /readyz over HTTP.

`worker` starts one `HealthServer` a process and gives it the functions to ask. It listens on all
addresses by default, since probes of Kubernetes come from outside of the pod. It tells
nothing secret and changes nothing. Four routes need no web framework, and a worker that
serves no API need not have one installed.
"""

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import msgspec

from forge_jobs.errors import ForgeError, InvalidSetting

HEAD_LIMIT = 8192
"""The longest request line and headers that are read, in bytes."""

PATIENCE = 5.0
"""Seconds within which a request has to arrive, and again its answer to be taken."""

ANSWER_TIMEOUT = 10.0
"""Seconds within which an answer is found."""

MAX_CONNECTIONS = 64
"""Connections at a time; for one more the oldest is closed, since a probe never waits long."""

Answer = tuple[HTTPStatus, str, bytes]
"""Status, content type, body."""


async def why_unanswered(ping: Callable[[], Awaitable[None]], *, within: float = 2.0) -> str | None:
    """Return None when the database answers `ping` in time, else a sentence that says it did not."""
    try:
        async with asyncio.timeout(within):
            await ping()
    except TimeoutError:
        return f"The database did not answer within {within:g} s."
    except ForgeError:
        return "The database cannot be reached."  # its own words may name hosts and users
    return None


class HealthServer:
    """A small HTTP/1.1 server, one request a connection.

    `metrics` gets the Accept header and returns the text and its content type. `is_alive`
    and `is_ready` return None, or one sentence that says why not.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        metrics: Callable[[str], Awaitable[tuple[bytes, str]]],
        is_alive: Callable[[], str | None],
        is_ready: Callable[[], Awaitable[str | None]],
    ) -> None:
        self._host, self._port = host, port
        self._metrics, self._is_alive, self._is_ready = metrics, is_alive, is_ready
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}  # oldest first

    async def start(self) -> int:
        """Requests are answered; return the port, which is a free one when 0 was asked for.

        Raises InvalidSetting when the address cannot be listened on.
        """
        if not 0 <= self._port <= 65535:  # uvloop would silently take another one
            raise InvalidSetting("--metrics-port", self._port, "a port from 0 (any) to 65535")
        try:
            self._server = await asyncio.start_server(self._accept, self._host, self._port, limit=HEAD_LIMIT)
        except OSError as error:
            reason = error.strerror or error
            address = f"{self._host}:{self._port}"
            raise InvalidSetting(
                "--metrics-host and --metrics-port", address, f"a free address of this host ({reason})"
            ) from None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """Nothing is answered any more, and every connection is closed."""
        if self._server is None:
            return
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= MAX_CONNECTIONS:
            next(iter(self._connections)).cancel()
        connection = asyncio.create_task(self._serve(reader, writer))
        self._connections[connection] = writer
        connection.add_done_callback(self._closed)

    def _closed(self, connection: "asyncio.Task[None]") -> None:
        self._connections.pop(connection).transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            method, answer = await self._answer(reader)
            writer.write(_written(method, answer))
            async with asyncio.timeout(PATIENCE):
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # the other side is gone, or too slow to matter

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[str, Answer]:
        try:
            async with asyncio.timeout(PATIENCE):
                head = await reader.readuntil(b"\r\n\r\n")
        except TimeoutError:
            return "GET", _text(HTTPStatus.REQUEST_TIMEOUT)
        except asyncio.LimitOverrunError:
            return "GET", _text(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        request_line, *headers = head.decode("latin-1").split("\r\n")
        match request_line.split(" "):
            case [method, target, "HTTP/1.1" | "HTTP/1.0"]:
                return method, await self._route(method, target.partition("?")[0], _accepted(headers))
        return "GET", _text(HTTPStatus.BAD_REQUEST)

    async def _route(self, method: str, path: str, accept: str) -> Answer:
        if path not in ("/metrics", "/healthz", "/readyz"):
            return _text(HTTPStatus.NOT_FOUND)
        if method not in ("GET", "HEAD"):
            return _text(HTTPStatus.METHOD_NOT_ALLOWED)
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                if path == "/healthz":
                    return _probed(self._is_alive())
                if path == "/readyz":
                    return _probed(await self._is_ready())
                body, content_type = await self._metrics(accept)
                return HTTPStatus.OK, content_type, body
        except TimeoutError:
            return _text(HTTPStatus.SERVICE_UNAVAILABLE)
        except Exception as error:
            # A probe that fails must not look like a network that fails: it gets an answer,
            # and the program's log gets the traceback.
            facts = {"message": f"{path} could not be answered", "exception": error}
            asyncio.get_running_loop().call_exception_handler(facts)
            return _text(HTTPStatus.INTERNAL_SERVER_ERROR)


def _accepted(headers: list[str]) -> str:
    """Return what all Accept headers say together."""
    pairs = (header.partition(":") for header in headers)
    return ",".join(value.strip() for name, _, value in pairs if name.lower() == "accept")


def _text(status: HTTPStatus) -> Answer:
    return status, "text/plain; charset=utf-8", f"{status.phrase}\n".encode()


def _probed(why_not: str | None) -> Answer:
    status = HTTPStatus.OK if why_not is None else HTTPStatus.SERVICE_UNAVAILABLE
    return status, "application/json", msgspec.json.encode({"ok": why_not is None, "why": why_not})


def _written(method: str, answer: Answer) -> bytes:
    status, content_type, body = answer
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "Connection: close",
    ]
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        lines.append("Allow: GET, HEAD")
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    return head if method == "HEAD" else head + body
