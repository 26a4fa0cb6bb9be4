"""Moving all that a SQLite file holds to PostgreSQL: each job is in one of both, whatever is cut off.

The file is shut first: from then on nothing in it changes, whoever has it open. Then all rows are added there, with their
ids, in one transaction, together with a token that says so. Whoever begins again asks for the token, and adds the rows or
knows that they are there. The file keeps its rows, and stays shut.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from forge_jobs.errors import ForgeError, InvalidInput
from forge_jobs.rules.words import count
from forge_jobs.storage.moving import SETTINGS, TABLES, Shut
from forge_jobs.storage.opening import open_arrival, open_departure

if TYPE_CHECKING:
    from forge_jobs.storage.interface.storage import Storage
    from forge_jobs.storage.moving import Arrival, Departure

NUMBERED = ("job", "signal", "failure", "intervention", "job_group", "flow", "operation")
"""Tables that give ids of their own, which are moved."""


@dataclass(slots=True)
class MoveReport:
    """What was moved, or would be: jobs by queue and state, and rows by table."""

    target: str
    jobs: Counter[tuple[str, str]]
    rows: Counter[str]
    workers: Sequence[str] = field(default=())  # that live although the file is left


class Moving:
    """One move, of a file into a storage that is open."""

    def __init__(
        self,
        storage: "Storage",
        source: str,
        *,
        schema: str,
        stale: timedelta,
        force: bool = False,
        tell: Callable[[int, int], None] = lambda moved, of: None,
    ) -> None:
        self._departure: Departure = open_departure(source)
        self._arrival: Arrival = open_arrival(storage)
        self._target = storage.url if schema == "forge_jobs" else f"{storage.url}, schema {schema}"
        self._stale = stale
        self._force = force
        self._tell = tell
        self._added = 0

    async def run(self, *, dry_run: bool = False) -> MoveReport:
        """All that the file holds is there, and the file is shut; return what was moved, or would be.

        Raises InvalidInput, changing nothing, when it cannot be moved now, and StorageUnavailable.
        """
        await self._departure.open()
        try:
            shut = await self._departure.shut_since()
            report = MoveReport(self._target, await self._departure.states(), await self._departure.counts())
            if shut is not None:
                self._check_same(shut)
                if not dry_run and not await self._arrival.has(shut.token):
                    await self._arrive(shut, report)
            else:
                report.workers = await self._check()
                if not dry_run:
                    async with self._arrival.transaction():
                        pass  # who may not lock the jobs there is told while the file is in use
                    shut = await self._departure.shut(self._target)
                    await self._arrive(shut, report, check=True)
            if shut is not None and not dry_run:
                await self._departure.left(self._target)
                await self._arrival.forget(shut.token)
            return report
        finally:
            await self._departure.close()

    def _check_same(self, shut: Shut) -> None:
        if shut.is_done:
            raise InvalidInput(f"The jobs of {self._departure.url} were moved to {shut.target} already.")
        if shut.target != self._target:
            raise InvalidInput(
                f"The jobs of {self._departure.url} are being moved to {shut.target}, allowed is to go on there."
            )

    async def _check(self) -> Sequence[str]:
        """Return the workers that live. Raises InvalidInput when something has to end first."""
        if undone := await self._departure.undone():
            raise InvalidInput(f"In {self._departure.url} {', '.join(undone)}; let that end first.")
        if (table := await self._arrival.occupied()) is not None:
            raise InvalidInput(
                f"{self._target} has been used (there are rows in {table}), allowed is a database "
                "in which nothing was enqueued."
            )
        workers = await self._departure.working(self._stale)
        if workers and not self._force:
            raise InvalidInput(
                f"{count(len(workers), 'worker')} of {self._departure.url} {'was' if len(workers) == 1 else 'were'} heard from within "
                f"{self._stale.total_seconds():g} s ({', '.join(workers)}); stop them first, "
                "or pass --force, and what they run begins again."
            )
        return workers

    async def _arrive(self, shut: Shut, report: MoveReport, *, check: bool = False) -> None:
        """All rows are there. Otherwise the file is in use again, unless it is not known whether they are."""
        try:
            if check:  # what was done between the look and the lock
                report.workers = await self._check()
            report.jobs, report.rows = await self._departure.states(), await self._departure.counts()
            await self._arrival.number("job", await self._departure.last_id("job"))
            async with self._arrival.transaction() as connection:
                await self._copy(shut, report.rows, connection)
        except BaseException:
            await self._take_back(shut)
            raise

    async def _take_back(self, shut: Shut) -> None:
        """The file is in use again, unless its rows are there, or may be. Another move of it waits meanwhile, or has ended."""
        with suppress(ForgeError):
            async with self._arrival.transaction() as connection:
                if not await self._arrival.has(shut.token, connection=connection):
                    await self._departure.reopen(shut)

    async def _check_shut(self, shut: Shut) -> None:
        """Raises InvalidInput when another move of the file has ended meanwhile."""
        now = await self._departure.shut_since()
        if now != shut:
            if now is not None:
                self._check_same(now)
            raise InvalidInput(f"Another move of {self._departure.url} has failed meanwhile; run this again.")

    async def _copy(self, shut: Shut, rows: Counter[str], connection: Any) -> None:
        await self._check_shut(shut)
        if (table := await self._arrival.occupied()) is not None:
            raise InvalidInput(f"{self._target} is in use: there are rows in {table}.")
        await self._arrival.note(shut.token, connection=connection)
        total = rows.total()
        for table in SETTINGS:
            columns = await self._departure.columns(table)
            async for part in self._departure.rows(table, columns):
                await self._arrival.set(table, columns, part, connection=connection)
        for table in TABLES:
            columns = await self._departure.columns(table)
            parts = self._told(self._departure.rows(table, columns), total)
            await self._arrival.add(table, columns, parts, connection=connection)
        for table in NUMBERED:
            last_id = await self._departure.last_id(table)
            if last_id:
                await self._arrival.number(table, last_id, connection=connection)
        for table in TABLES:
            arrived = await self._arrival.count(table, connection=connection)
            if table not in ("tally", "worker_label") and arrived != rows[table]:
                raise InvalidInput(
                    f"Table {table} of {self._departure.url} has {rows[table]} rows, and {arrived} arrived."
                )
        await self._arrival.settle(connection=connection)

    async def _told(
        self, parts: AsyncIterator[Sequence[tuple[Any, ...]]], total: int
    ) -> AsyncIterator[Sequence[tuple[Any, ...]]]:
        async for part in parts:
            self._added += len(part)
            self._tell(self._added, total)
            yield part
