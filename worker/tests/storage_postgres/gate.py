"""A way to the server that can go silent, or refuse whoever takes it."""

import asyncio
from contextlib import suppress
from urllib.parse import parse_qs, urlsplit


class Gate:
    """Stands between a client and the server's socket; it may go silent as a dead network does, and refuse as a dead proxy does."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._socket = f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.5432"
        self._name = parts.path
        self._silent: set[asyncio.StreamWriter] = set()
        self._open: set[asyncio.StreamWriter] = set()
        self._swallowed = 0  # bytes
        self._taken = 0  # connections that lead nowhere
        self._port = 0
        self._takes_all = False  # and gives nothing
        self.url = ""

    async def __aenter__(self) -> "Gate":
        await self.reopen()
        self.url = f"postgresql://postgres@127.0.0.1:{self._port}{self._name}"
        return self

    async def reopen(self) -> None:
        """Whoever comes passes."""
        self._takes_all = False
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._open:
            writer.close()

    def refuse(self) -> None:
        """Nobody passes any more, and whoever has passed is cut off."""
        self._server.close()
        for writer in self._open:
            writer.transport.abort()

    def swallow(self) -> None:
        """Nothing more passes through the connections that are open now."""
        self._silent |= self._open

    def swallow_all(self) -> None:
        """The same, and whoever comes is let in and hears nothing."""
        self.swallow()
        self._takes_all = True

    async def has_swallowed(self) -> bool:
        """Whether anything got lost since."""
        return self._swallowed > 0

    async def has_taken(self) -> bool:
        """Whether somebody was let in who hears nothing."""
        return self._taken > 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._takes_all:
            self._open.add(writer)
            self._taken += 1
            return
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
