"""What a command writes to one of its outputs: each line is logged, and the end is kept."""

import asyncio
import logging
import os
from types import TracebackType
from typing import Self

logger = logging.getLogger("forge_jobs.command")

KEPT = 16 * 1024  # bytes
LONGEST_LINE = 8 * 1024  # bytes; a longer line is said in pieces
CHUNK = 8 * 1024  # bytes


class Output:
    """A pipe: `descriptor` is what the command writes to. Close it here once the command has it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.descriptor = -1
        self._source = -1
        self._tail = bytearray()
        self._line = bytearray()

    def __enter__(self) -> Self:
        self._source, self.descriptor = os.pipe()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if self._source >= 0:
            os.close(self._source)
            self._source = -1

    def close(self) -> None:
        """Only the command, and what it started, can write any more."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def tail(self, most: int = KEPT) -> str:
        """Return at most the last `most` bytes of what was written, as text."""
        return bytes(self._tail[-most:]).decode("utf-8", "replace")

    async def follow(self) -> None:
        """Return when nobody can write any more; until then, say each line."""
        reader = asyncio.StreamReader(limit=CHUNK)
        pipe = os.fdopen(self._source, "rb", buffering=0)
        self._source = -1
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), pipe
        )
        try:
            while chunk := await reader.read(CHUNK):
                self._take(chunk)
                await asyncio.sleep(0)  # one that writes without end must not keep the loop for itself
            self._say(self._line)
        finally:
            transport.close()

    def _take(self, chunk: bytes) -> None:
        self._tail += chunk
        del self._tail[:-KEPT]
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            self._say(self._line + line)
            self._line.clear()
        self._line += rest
        if len(self._line) > LONGEST_LINE:
            self._say(self._line)
            self._line.clear()

    def _say(self, line: bytes | bytearray) -> None:
        if text := line.decode("utf-8", "replace").rstrip():
            logger.info("%s", text, extra={"stream": self.name})
