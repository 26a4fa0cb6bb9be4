"""Write log lines without ever waiting for their reader.

A thread writes what handlers of the logging module hand in. A reader that is stuck (a full pipe, a
terminal that is held) costs lines, and a line says how many when it reads again; the worker goes on.
"""

import contextlib
import logging
import os
import select
import threading
import time
from collections import deque
from typing import TextIO

MOST_WAITING = 4 * 1024 * 1024  # characters that wait to be written
BATCH = 64 * 1024  # characters in one write
LAST_LINES = 1.0  # seconds that the end of the program waits for them


class LogWriter(logging.Handler):
    """Writes records to a file descriptor, one after the other, from a thread of its own."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._begin()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        """Begin with no lines; also in a fork: its lines wait in its parent, and it has no thread."""
        self._lines: deque[str] = deque()
        self._waiting = 0  # characters, in `_lines` and in the hands of the thread
        self._dropped = 0
        self._state = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_awake = False

    def emit(self, record: logging.LogRecord) -> None:
        """The record will be written, or is counted as dropped."""
        try:
            line = self.format(record) + "\n"
        except Exception as error:
            line = f"A log line of {record.name} could not be made: {type(error).__name__}\n"
        with self._state:
            if self._waiting + len(line) > MOST_WAITING:
                self._dropped += 1
                return
            self._lines.append(line)
            self._waiting += len(line)
            if self._is_awake:
                return
            self._is_awake = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_all, name="forge-jobs-log", daemon=True)
                self._thread.start()
            self._state.notify_all()

    def flush(self) -> None:
        """What was handed in is written, or a moment has passed."""
        until = time.monotonic() + LAST_LINES
        with self._state:
            while self._waiting and (left := until - time.monotonic()) > 0:
                self._state.wait(left)

    def close(self) -> None:
        self.flush()
        super().close()

    def _write_all(self) -> None:
        state = self._state
        while True:
            with state:
                while not self._lines:
                    self._is_awake = False
                    state.wait()
                batch = self._taken()
            with contextlib.suppress(OSError):  # nobody will ever read it
                self._write("".join(batch))
            with state:
                self._waiting -= sum(map(len, batch))
                state.notify_all()

    def _taken(self) -> list[str]:
        batch, size = [], 0
        while self._lines and size < BATCH:
            line = self._lines.popleft()
            batch.append(line)
            size += len(line)
        if self._dropped and not self._lines:
            batch.append(self._said(self._dropped))
            self._waiting += len(batch[-1])
            self._dropped = 0
        return batch

    def _said(self, dropped: int) -> str:
        sentence = f"{dropped} log lines were dropped, since nobody read them"
        facts = {"dropped": dropped}
        record = logging.getLogger("forge_jobs").makeRecord(
            "forge_jobs", logging.WARNING, __file__, 0, sentence, (), None, extra=facts
        )
        return self.format(record) + "\n"

    def _write(self, text: str) -> None:
        left = memoryview(text.encode("utf-8", "backslashreplace"))
        while left:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:  # somebody else made it non-blocking
                select.select([], [self._descriptor], [])


def handler(stream: TextIO) -> logging.Handler:
    """Return a handler that writes to `stream`; one that does not wait when a file, a pipe or a terminal is behind it."""
    try:
        return LogWriter(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return logging.StreamHandler(stream)
