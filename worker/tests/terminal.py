"""A command at a terminal, with somebody who answers what it asks."""

import fcntl
import os
import pty
import termios
from dataclasses import dataclass

from tests.command_line import CommandLine


@dataclass(frozen=True, slots=True)
class Session:
    """What was seen on the terminal, what went to stdout, and the exit code."""

    code: int
    seen: str
    out: str


def at_a_terminal(cli: CommandLine, *arguments: str, answer: str | None = None) -> Session:
    """Run the command with its stdin and stderr at a terminal, and type the answer once it asks (\\x03: Ctrl-C)."""
    ours, theirs = pty.openpty()
    process = cli.process(
        *arguments, stdin=theirs, stderr=theirs, preexec_fn=lambda: _take(theirs), start_new_session=True
    )
    os.close(theirs)
    seen = b""
    try:
        while part := _read(ours):
            seen += part
            if answer is not None and b"[y/N]" in seen:
                os.write(ours, answer.encode())
                answer = None
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        os.close(ours)
    assert process.returncode is not None
    return Session(process.returncode, seen.decode(), out)


def _take(terminal: int) -> None:
    """In the child: the terminal is the one whose Ctrl-C it hears."""
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # the other side is closed
        return b""
