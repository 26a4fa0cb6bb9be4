"""The tables themselves."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Protocol

from forge_jobs.model.facts import SchemaStatus

Waits = Callable[[str, float], None]
"""Called with a sentence that says who is waited for, and in how many seconds the next try comes."""


PATIENCE = timedelta(minutes=1)
"""How long a migration waits for what others hold, before it gives up and changes nothing."""


class Purpose(StrEnum):
    """What a program does with the database; each needs other rights."""

    ENQUEUER = "enqueuer"  # only enqueues
    WORKER = "worker"  # does all that workers do
    READER = "reader"  # looks, and changes nothing
    SIGNALLER = "signaller"  # only sends signals to jobs


class Schema(Protocol):
    """The tables themselves."""

    async def create(self) -> None:
        """The database exists (Postgres: CREATE DATABASE if need be; SQLite: the file and its folder)."""

    async def migrate(self, *, patience: timedelta = PATIENCE, waits: Waits | None = None) -> int:
        """Every migration of this release is applied; return how many were applied now.

        Safe when many processes call it at once, and while workers of this release and of the
        one before are at work: they go on. What others hold is waited for: `waits` is told
        who they are, and after `patience` StorageBusy is raised. Raises SchemaTooNew, changing nothing,
        when a breaking migration that this release does not know was applied.
        """

    async def status(self) -> SchemaStatus:
        """Return where the database stands, without changing it."""

    def grants(self, role: str, purpose: Purpose) -> Sequence[str]:
        """Return the statements by which the owner of the tables lets a role do what `purpose` needs, and nothing else.

        Rights to what later migrations make come to the role by themselves. Raises InvalidInput where the database knows no roles.
        """

    async def lacking(self, purpose: Purpose) -> Sequence[str]:
        """Return the rights to the tables that `purpose` needs and we lack, such as "INSERT on job". There are tables."""

    async def drop(self) -> None:
        """Nothing of forge-jobs is left in the database: all jobs and history are gone."""
