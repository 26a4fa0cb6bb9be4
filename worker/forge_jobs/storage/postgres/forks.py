"""What a forked child does with the connections that it has inherited: nothing."""

import os
from weakref import WeakSet

import asyncpg

_made: WeakSet[asyncpg.Connection] = WeakSet()
_inherited: list[asyncpg.Connection] = []


def left_to_parent(connection: asyncpg.Connection) -> None:
    """A child that is forked from now on leaves the connection alone."""
    _made.add(connection)


def _leave_all() -> None:
    """In a forked child: connections are the parent's, who must not see an end of them.

    asyncpg ends a connection that is garbage-collected, and asyncio would take its socket out of the
    selector that both processes share.
    """
    _inherited.extend(_made)
    for connection in _inherited:
        connection._aborted = True  # so it seems to itself, and it does nothing when it is collected


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all)
