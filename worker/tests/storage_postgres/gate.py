"""A way to the server that can go silent."""

import asyncio
from contextlib import suppress
from urllib.parse import parse_qs, urlsplit


class Gate:
    """Stands between a client and the server's socket, and may go silent as a dead network does."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._socket = f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.5432"
        self._name = parts.path
        self._silent: set[asyncio.StreamWriter] = set()
        self._open: set[asyncio.StreamWriter] = set()
        self._swallowed = 0  # bytes
        self.url = ""

    async def __aenter__(self) -> "Gate":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"postgresql://postgres@127.0.0.1:{port}{self._name}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._open:
            writer.close()

    def swallow(self) -> None:
        """Nothing more passes through the connections that are open now."""
        self._silent |= self._open

    async def has_swallowed(self) -> bool:
        """Whether anything got lost since."""
        return self._swallowed > 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_unix_connection(self._socket)
        self._open |= {writer, server_writer}
        await asyncio.gather(self._pass(reader, server_writer), self._pass(server_reader, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if writer in self._silent:
                    self._swallowed += len(data)
                    continue
                writer.write(data)
                await writer.drain()
            writer.close()
