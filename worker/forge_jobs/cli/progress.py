"""The progress of a command that takes long. It goes to stderr, so that stdout holds the result alone."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

from forge_jobs.cli.output import write
from forge_jobs.system.terminal import is_terminal, status

EVERY_SECONDS = 1.0
"""How often a program that reads JSON is told, so that a quick command tells nothing."""

Tell = Callable[[str, Mapping[str, object]], None]


@contextmanager
def progress(*, as_json: bool) -> Iterator[Tell]:
    """Call what is given with a sentence and a document of what was done so far.

    On a terminal the sentence is a live line until the end of the block; with --json the document is a line.
    """
    if as_json:
        yield _Lines()
    elif not is_terminal(sys.stderr):
        yield lambda sentence, document: None
    else:
        with status(sys.stderr, "Beginning …") as say:
            yield lambda sentence, document: say(sentence)


class _Lines:
    """A document a line, not too often."""

    def __init__(self) -> None:
        self._next_at = time.monotonic() + EVERY_SECONDS

    def __call__(self, sentence: str, document: Mapping[str, object]) -> None:
        now = time.monotonic()
        if now >= self._next_at:
            self._next_at = now + EVERY_SECONDS
            with suppress(OSError):  # the work goes on, whether or not somebody reads
                write(sys.stderr, json.dumps({"progress": document}))
