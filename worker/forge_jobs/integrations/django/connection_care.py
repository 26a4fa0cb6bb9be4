"""Django's connections around a task, as Django itself has them around a request."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import close_old_connections, connections


class LeftOpen(Exception):
    """A task has ended inside of a transaction that it began."""


@contextmanager
def of_one_task() -> Iterator[None]:
    """The connections of this thread can be used, and nothing of the task is left in them afterwards.

    One that has outlived CONN_MAX_AGE is closed before and after. Each is tried out before its first use, so that a task does not
    fail because its connection was ended while none ran. What a task leaves in a transaction is rolled back, and
    raises LeftOpen: all later tasks of the thread would be part of it.
    """
    try_out_connections()
    close_old_connections()
    before = {connection.alias for connection in _in_a_transaction()}
    try:
        yield
    finally:
        left = [connection for connection in _in_a_transaction() if connection.alias not in before]
        for connection in left:
            _forget(connection)
        close_old_connections()
    if left:
        names = ", ".join(repr(connection.alias) for connection in left)
        raise LeftOpen(f"The task left a transaction open on the database {names}; it was rolled back.")


def try_out_connections() -> None:
    """Connections, also those that a pool keeps, are tried out before they are used again (CONN_HEALTH_CHECKS)."""
    for settings in connections.settings.values():
        settings["CONN_HEALTH_CHECKS"] = True
    for connection in connections.all(initialized_only=True):
        connection.health_check_enabled = True


def begin_to_work() -> None:
    """This thread keeps no connection while others run tasks, and pools that are made from now on try theirs out."""
    try_out_connections()
    for connection in connections.all(initialized_only=True):
        if connection.in_atomic_block:
            continue
        connection.close()
        if connection.settings_dict.get("OPTIONS", {}).get("pool"):
            connection.close_pool()


def pool_of(alias: str) -> int | None:
    """Return how many connections Django's pool of this database has at most; None: it has none, or says no number."""
    options: Any = (connections.settings[alias].get("OPTIONS") or {}).get("pool")
    if not options:
        return None
    said = options if isinstance(options, dict) else {}
    most: int | None = said.get("max_size") or said.get("min_size") or 4
    return most


def _in_a_transaction() -> Iterator[Any]:
    for connection in connections.all(initialized_only=True):
        if connection.in_atomic_block:
            yield connection


def _forget(connection: Any) -> None:
    """What is open on the connection is rolled back, and the thread gets a new one when it asks for one."""
    connection.in_atomic_block = connection.needs_rollback = False
    connection.savepoint_ids, connection.run_on_commit = [], []
    connection.close()
    del connections[connection.alias]
