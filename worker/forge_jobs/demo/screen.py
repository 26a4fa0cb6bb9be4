"""What a demonstration shows: lines, and at a terminal what it does at the moment."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from forge_jobs.system.terminal import is_terminal, status, styled


class Screen:
    """Standard output; nothing is shown when it `is_quiet`."""

    def __init__(self, *, is_quiet: bool) -> None:
        self.is_quiet = is_quiet
        self.is_live = not is_quiet and is_terminal(sys.stdout)

    def show(self, line: str, **style: Any) -> None:
        """The line is shown, at a terminal in this style."""
        if not self.is_quiet:
            encoding = sys.stdout.encoding or "utf-8"
            text = styled(line, **style) if self.is_live and style else line
            print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Meanwhile a terminal says what is done."""
        if not self.is_live:
            yield
            return
        with status(sys.stdout, what):
            yield
