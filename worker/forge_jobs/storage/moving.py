"""A whole database on its way from SQLite to PostgreSQL: the file that is left, and the server that is moved to."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

TABLES = (
    *(
        "job",
        "job_key",
        "unique_hold",
        "time_limit",
        "saved_state",
        "key_state",
        "progress",
        "step",
        "signal",
        "pin",
        "intervention",
    ),
    *("scheduled", "blocked", "waiting", "ready", "claimed", "finished", "failure"),
    *("rate_key", "permit", "settled_permit", "job_group", "paused_group", "paused_kind", "occupant"),
    *("flow", "flow_node", "flow_edge", "tenant_weight", "tenant_turn", "tenant_clock", "operation", "fire"),
    *("tally", "handed_in", "minute_statistic", "worker_label"),
)
"""Whose rows are moved as they are, after those of SETTINGS, to which some of them refer."""

SETTINGS = {"queue": "name", "rate_limit": "scope", "kind": "kind", "cron": "name"}
"""Tables in which the server may have rows already, each with the column by which one is known."""

NOT_MOVED = {
    **{"migration": "each database has its own", "revision": "it goes on counting", "moved": "it says this"},
    **{"job_tag": "made from the jobs", "slot": "made from the queues"},
    **{"worker": "they live where they are", "idle": "so do they", "leader": "one of the workers"},
    **{"era": "of this history", "notice": "for processes that have opened the file"},
    **{"worker_version": "only Kubernetes has some", "operator": "so does it"},
    **{"imported": "of an import"},
}
"""The other tables of the file, and why their rows stay."""


@dataclass(frozen=True, slots=True)
class Shut:
    """Says of a file that its jobs are on their way, or have gone."""

    token: str  # by which the server knows that they have arrived
    target: str  # the URL, without a password
    is_done: bool


class Departure(Protocol):
    """The SQLite file that is left."""

    url: str

    async def open(self) -> None:
        """It can be read. Raises InvalidInput when there is none or it is no database of this release."""

    async def close(self) -> None:
        """Nothing is open any more."""

    async def shut_since(self) -> Shut | None:
        """Return what the file says of itself; None: it is in use."""

    async def working(self, stale: timedelta) -> Sequence[str]:
        """Return the labels of the workers that were heard from within this time."""

    async def undone(self) -> Sequence[str]:
        """Return what has to end first, each as a clause: deletions of queues, bulk operations."""

    async def states(self) -> Counter[tuple[str, str]]:
        """Return how many jobs there are, by queue and state."""

    async def counts(self) -> Counter[str]:
        """Return how many rows each of TABLES and SETTINGS has."""

    async def shut(self, target: str) -> Shut:
        """Nothing in the file changes any more, whoever has it open, and whoever opens it is told where the jobs go.

        Raises InvalidInput when it is shut already.
        """

    async def reopen(self, shut: Shut) -> None:
        """It is in use again, if it is still shut as it was by this."""

    async def left(self, target: str) -> None:
        """It is said that the jobs are there now."""

    async def columns(self, table: str) -> Sequence[str]:
        """Return the names of the columns of a table."""

    def rows(self, table: str, columns: Sequence[str]) -> AsyncIterator[Sequence[tuple[Any, ...]]]:
        """Yield all rows of a table, in parts."""

    async def last_id(self, table: str) -> int:
        """Return the highest id that the table has ever given."""


class Arrival(Protocol):
    """The PostgreSQL database that is moved to. All that is done in one `transaction` is committed with it."""

    async def has(self, token: str, *, connection: Any = None) -> bool:
        """Whether the jobs that have this token arrived."""

    async def occupied(self) -> str | None:
        """Return one of TABLES that has rows; None: all are empty."""

    def transaction(self) -> AbstractAsyncContextManager[Any]:
        """Give the connection of a transaction in which nobody else enqueues."""

    async def note(self, token: str, *, connection: Any) -> None:
        """The jobs with this token have arrived."""

    async def forget(self, token: str) -> None:
        """Nobody will ask for it again."""

    async def set(
        self, table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]], *, connection: Any
    ) -> None:
        """The rows of one of SETTINGS are there. What an owner manages stays as it is, and so do kinds that are known."""

    async def add(
        self,
        table: str,
        columns: Sequence[str],
        rows: AsyncIterator[Sequence[tuple[Any, ...]]],
        *,
        connection: Any,
    ) -> None:
        """The rows of one of TABLES are there."""

    async def number(self, table: str, last_id: int, *, connection: Any = None) -> None:
        """The next id of the table is higher than this one."""

    async def settle(self, *, connection: Any) -> None:
        """What only PostgreSQL keeps is made, and whoever waits for jobs hears of them with the commit."""

    async def count(self, table: str, *, connection: Any) -> int:
        """Return how many rows a table has."""
