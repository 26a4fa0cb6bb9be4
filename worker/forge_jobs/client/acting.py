"""Who acts: whose name is noted of what is done to jobs by hand."""

import getpass
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from forge_jobs.errors import InvalidInput
from forge_jobs.rules import names

LONGEST_NAME = 200

_name: ContextVar[str | None] = ContextVar("acting_as", default=None)


@contextmanager
def acting_as(name: str) -> Iterator[None]:
    """What is done to jobs by hand meanwhile, in this task or thread, is noted as done by `name`: 1 to 200 characters. Raises InvalidInput."""
    said = names.line(name, "The name of who acts")
    if len(said) > LONGEST_NAME:
        raise InvalidInput(
            f"The name of who acts has {len(said)} characters, allowed are 1 to {LONGEST_NAME}: it is {said[:40]!r}..."
        )
    token = _name.set(said)
    try:
        yield
    finally:
        _name.reset(token)


def who_acts() -> str:
    """Return the name that was given, else the user of this process, and its host."""
    return _name.get() or asked_by()


def who_is_named() -> str | None:
    """Return the name that was given; None: what a program does as a part of its work is not noted."""
    return _name.get()


def asked_by() -> str:
    """Return the user of this process, and its host."""
    try:
        user = getpass.getuser()
    except (ImportError, KeyError, OSError):  # a user without a name, as in a container
        user = "somebody"
    return as_a_name(f"{user}@{socket.gethostname()}")


def as_a_name(text: str) -> str:
    """Return a text that another system has for somebody as a name of who acts, in which all can be printed."""
    # The names that a system has may be bytes of no text: a database refuses them, and with them what is done.
    return "".join(letter if letter.isprintable() else "?" for letter in text[:LONGEST_NAME]) or "somebody"
