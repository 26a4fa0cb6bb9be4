"""Jobs that are taken over from the queue of another package, which is in PostgreSQL."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from forge_jobs.model.foreign_job import ForeignJob, ForeignQueue, ImportedJob


class ForeignJobs(Protocol):
    """The queue of another package. All that one `transaction` does there is committed with it.

    A job that is `set_aside` is no job there any more; it is kept in a table of ours beside theirs until it is `dropped`.
    """

    async def open(self) -> None:
        """Its database has answered. Raises StorageUnavailable."""

    async def close(self) -> None:
        """Nothing is open any more."""

    async def check(self) -> None:
        """Raise InvalidInput when its tables are not there, or are of a release that is not known."""

    def transaction(self) -> AbstractAsyncContextManager[Any]:
        """Give the connection of a transaction."""

    async def find(self, after: int, *, limit: int, connection: Any) -> list[ForeignJob]:
        """Return jobs that have not ended well with ids above `after`, by id, which nobody else can take or change meanwhile.

        Those that another transaction has locked are left out.
        """

    async def count(self) -> int:
        """Return how many jobs have not ended well, whoever has locked them."""

    async def remove(self, ids: Sequence[int], *, connection: Any) -> None:
        """The jobs are gone."""

    async def keeps_aside(self) -> bool:
        """Return whether jobs were ever set aside, some of which may be kept still."""

    async def prepare(self) -> None:
        """Jobs can be set aside."""

    async def set_aside(self, jobs: Sequence[tuple[str, ForeignJob]], *, connection: Any) -> None:
        """The jobs, each with its token, are kept aside."""

    async def aside(self, after: str, *, limit: int, connection: Any) -> list[tuple[str, ForeignJob]]:
        """Return jobs that are kept aside, with tokens above `after`, which nobody else can have meanwhile."""

    async def dropped(self, tokens: Sequence[str], *, connection: Any) -> None:
        """The jobs with these tokens are not kept aside any more."""


class Imports(Protocol):
    """The way in."""

    def here(self, package: ForeignQueue, schema: str | None) -> ForeignJobs:
        """Return the queue of a package in the same database, in this schema or that of the package. Raises InvalidInput where there cannot be one."""

    async def begin(self) -> None:
        """Jobs with tokens can be added."""

    async def add(self, jobs: Sequence[ImportedJob], *, connection: Any = None) -> list[int | None]:
        """The jobs wait, with their attempts, or are dead; return their ids; None: a living job has the key, and nothing was added.

        With the `connection` of a transaction `here` they are part of that. One whose token was added before is not added
        again, whatever has become of it: 0. Raises UnknownQueue.
        """

    async def forget(self, tokens: Sequence[str]) -> None:
        """Nobody will add jobs with these tokens again."""
