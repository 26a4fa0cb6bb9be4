"""The terminal that a command writes to: whether it is one, how wide it is, and how words look there."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click

SPIN_SECONDS = 0.1
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


def is_terminal(stream: Any) -> bool:
    """Whether a person reads the stream; FORCE_COLOR says so of any."""
    return stream is not None and (bool(os.environ.get("FORCE_COLOR")) or stream.isatty())


def width() -> int:
    """Return how many columns the terminal has; 80 when it does not say."""
    return shutil.get_terminal_size().columns


def styled(text: str, **style: Any) -> str:
    """Return the text in this style (of click.style), unless NO_COLOR or a terminal without colours forbids it."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") in ("dumb", "unknown"):
        return text
    return click.style(text, **style)


@contextmanager
def live(stream: Any, first: str) -> Iterator[Callable[[str], None]]:
    """Meanwhile what is given to the yielded function stands at the end of the terminal, in place of what it was given before.

    At the end of the block the last of it stays. Everything has to be as wide as the terminal at most.
    """
    shown = 0

    def show(text: str) -> None:
        nonlocal shown
        lines = text.split("\n")[-max(1, shutil.get_terminal_size().lines - 1) :]
        up = f"\x1b[{shown - 1}A" if shown > 1 else ""
        stream.write(f"\r{up}\x1b[J" + "\n".join(lines))
        stream.flush()
        shown = len(lines)

    show(first)
    try:
        yield show
    finally:
        with suppress(OSError):
            stream.write("\n")
            stream.flush()


@contextmanager
def status(stream: Any, first: str) -> Iterator[Callable[[str], None]]:
    """Meanwhile a spinner turns before the sentence that was said last; afterwards nothing is left of it."""
    said, ended = first, threading.Event()

    def say(sentence: str) -> None:
        nonlocal said
        said = sentence

    def turn() -> None:
        turns = 0
        encoding = stream.encoding or "utf-8"
        with suppress(OSError, ValueError):  # nobody reads it any more, and the work goes on
            while True:
                is_last = ended.is_set()
                line = f"{SPINNER[turns % len(SPINNER)]} {said}"[: width() - 1]
                stream.write("\r\x1b[K" + line.encode(encoding, "replace").decode(encoding))
                stream.flush()
                turns += 1
                if is_last:
                    return
                ended.wait(SPIN_SECONDS)

    thread = threading.Thread(target=turn, name="forge-jobs-status", daemon=True)
    thread.start()
    try:
        yield say
    finally:
        ended.set()
        thread.join()
        with suppress(OSError, ValueError):
            stream.write("\r\x1b[K")
            stream.flush()
