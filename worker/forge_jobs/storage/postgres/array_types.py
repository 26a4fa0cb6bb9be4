"""What PostgreSQL's own array types are, which the driver asks the server about for each connection: here once a process."""

from typing import Any

import asyncpg

FIRST_OF_OTHERS = 10_000  # smaller numbers of types are the same in each PostgreSQL
ARRAYS = (1000, 1001, 1005, 1007, 1016, 1022, 1185, 1187)
"""Types of arguments of our statements: boolean[], bytea[], smallint[], integer[], bigint[], float8[], timestamptz[], interval[]."""

DRIVERS = "0.30.", "0.31.", "0.32."
"""Versions of the driver that are known to ask as `ArrayConnection` does; it is not for others, since it is no public way."""

# What a server said of a type, by its number; that of elements comes before arrays.
_known: dict[int, Any] = {}


class _Answer:
    """In place of the statement that asks the server, which is not in the way of another one either."""

    name = "known"


class ArrayConnection(asyncpg.Connection):  # type: ignore[misc]
    """A connection that knows arrays: to be told of them takes the server longer than a claim, and each connection several times."""

    __slots__ = ()

    async def _introspect_types(self, typeoids: Any, timeout: float | None) -> Any:
        """Return what is said of these types, as the driver does, which registers it."""
        if not _known.keys() >= set(typeoids):
            types, statement = await super()._introspect_types({*typeoids, *ARRAYS}, timeout)
            _known.update(
                (row["oid"], row) for row in types if row["kind"] == b"b" and row["oid"] < FIRST_OF_OTHERS
            )
            return types, statement
        return list(_known.values()), _Answer


CONNECTION = ArrayConnection if asyncpg.__version__.startswith(DRIVERS) else asyncpg.Connection
"""The class of connections."""
