"""Taking over the jobs of another package: each is moved once, whatever is cut off.

Where both queues are in one database, a batch is deleted there and added here in one transaction. Where they are not, a batch
is set aside there in one transaction, beside their tables, each job with a token; then it is added here with its tokens, and
dropped there. Whoever begins again begins with what is kept aside: what was added by its token is not added again.
Nobody runs a job that is kept aside, so that one which cannot come here is left where it is before.
"""

import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from forge_jobs.model.foreign_job import ForeignJob, ForeignQueue, ImportedJob
from forge_jobs.rules import foreign_jobs, names
from forge_jobs.storage.opening import open_foreign_jobs

if TYPE_CHECKING:
    from forge_jobs.storage.interface.imports import ForeignJobs
    from forge_jobs.storage.interface.storage import Storage

BATCH = 500


@dataclass(slots=True)
class ImportReport:
    """What was taken over, or would be, by kind and queue; and what stays there, by the reason."""

    imported: Counter[tuple[str, str]] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    dead: int = 0  # of those that were taken over

    @property
    def count(self) -> int:
        """How many were taken over."""
        return self.imported.total()


class Import:
    """One taking over, into a storage that is open."""

    def __init__(
        self,
        storage: "Storage",
        package: ForeignQueue,
        *,
        url: str | None = None,
        schema: str | None = None,
        queue: str = "default",
        dead: bool = False,
        tell: Callable[[int], None] = lambda jobs: None,
    ) -> None:
        self._storage = storage
        self._package = package
        self._url = url
        self._schema = schema
        self._queue = names.queue(queue)
        self._dead = dead
        self._tell = tell
        self._queues: set[str] = set()  # that are known to exist here
        self._sealed: set[str] = set()  # kinds whose payloads nobody may see here
        self._held: set[str] = set()  # tokens of jobs that stay aside, since others have their keys
        self._staying = 0  # jobs that are in their table when all is done, and were seen there
        self._report = ImportReport()

    async def run(self, *, dry_run: bool = False) -> ImportReport:
        """All jobs that wait there wait here; return what was done, or what would be. Raises InvalidInput, StorageUnavailable."""
        self._sealed = {kind.kind for kind in await self._storage.kinds.all() if kind.sealed}
        if self._url is None:
            there = self._storage.imports.here(self._package, self._schema)
            await there.check()
            await self._kept_aside(there, dry_run=dry_run)
            await self._all(there, dry_run=dry_run)
            return self._report
        there = open_foreign_jobs(self._url, self._package, self._schema)
        await there.open()
        try:
            await there.check()
            if not dry_run:
                await there.prepare()
            await self._kept_aside(there, dry_run=dry_run)
            await self._all(there, dry_run=dry_run)
        finally:
            await there.close()
        return self._report

    async def _all(self, there: "ForeignJobs", *, dry_run: bool) -> None:
        last = -1
        found: Sequence[ForeignJob] = ()
        while last == -1 or found:
            if self._url is None or dry_run:
                async with there.transaction() as connection:
                    found = await there.find(last, limit=BATCH, connection=connection)
                    meant = await self._meant(found)
                    if dry_run:
                        self._staying += len(meant)
                        self._count([(job, one) for job, one, _ in meant])
                    elif meant:
                        ids = await self._added([one for _, one, _ in meant], connection)
                        moved = [(job, one) for (job, one, _), id in zip(meant, ids, strict=True) if id]
                        await there.remove([job.id for job, _ in moved], connection=connection)
                        self._count(moved)
            else:
                async with there.transaction() as connection:
                    found = await there.find(last, limit=BATCH, connection=connection)
                    aside = [(token, job) for job, _, token in await self._meant(found)]
                    if aside:
                        await there.set_aside(aside, connection=connection)
                await self._take_in(there)
            last = found[-1].id if found else 0
            self._tell(self._report.count)
        self._report.left[foreign_jobs.IS_LOCKED] += max(0, await there.count() - self._staying)

    async def _meant(self, found: Sequence[ForeignJob]) -> list[tuple[ForeignJob, ImportedJob, str]]:
        """Return those that are taken over, with what they are here and tokens for them; the others are counted."""
        meant = []
        for job in found:
            token = secrets.token_hex(16)
            answer = foreign_jobs.imported(job, self._queue, dead=self._dead, sealed=self._sealed)
            if isinstance(answer, str):
                self._report.left[answer] += 1
                self._staying += 1
            elif await self._is_held(answer):
                self._report.left[foreign_jobs.HAS_KEY] += 1
                self._staying += 1
            else:
                meant.append((job, answer, token))
        return meant

    async def _is_held(self, job: ImportedJob) -> bool:
        """Return whether a living job here has the key of this one."""
        key = job.job.key
        return key is not None and await self._storage.keys.holder(job.job.kind, key) is not None

    async def _kept_aside(self, there: "ForeignJobs", *, dry_run: bool) -> None:
        """What an earlier run that was cut off has set aside is here, or counted."""
        if not await there.keeps_aside():
            return
        if not dry_run:
            await self._storage.imports.begin()
            await self._take_in(there)
            return
        after: str | None = ""
        while after is not None:
            async with there.transaction() as connection:
                aside = await there.aside(after, limit=BATCH, connection=connection)
            for token, job in aside:
                imported = self._of_aside(token, job)
                if await self._is_held(imported):
                    self._report.left[foreign_jobs.IS_KEPT] += 1
                else:
                    self._count([(job, imported)])
            after = aside[-1][0] if aside else None

    async def _take_in(self, there: "ForeignJobs") -> None:
        """What is kept aside there is here."""
        after = ""
        while True:
            async with there.transaction() as connection:
                aside = await there.aside(after, limit=BATCH, connection=connection)
                if not aside:
                    return
                after = aside[-1][0]
                # In the order in which they were there; tokens are random.
                aside.sort(key=lambda pair: pair[1].id)
                jobs = [(job, self._of_aside(token, job)) for token, job in aside]
                ids = await self._added([one for _, one in jobs], None)
                moved = [(job, one) for (job, one), id in zip(jobs, ids, strict=True) if id is not None]
                tokens = [one.token for _, one in moved if one.token is not None]
                await there.dropped(tokens, connection=connection)
                self._count(moved)
            await self._storage.imports.forget(tokens)

    def _of_aside(self, token: str, job: ForeignJob) -> ImportedJob:
        answer = foreign_jobs.imported(job, self._queue, dead=True, token=token)
        assert isinstance(answer, ImportedJob), answer  # it was when it was set aside
        return answer

    async def _added(self, jobs: Sequence[ImportedJob], connection: object) -> list[int | None]:
        wanted = {one.job.queue for one in jobs if one.job.queue} - self._queues
        if wanted:
            await self._storage.queues.ensure(sorted(wanted))
            self._queues |= wanted
        ids = await self._storage.imports.add(jobs, connection=connection)
        for one, id in zip(jobs, ids, strict=True):
            if id is None and one.token not in self._held:
                self._report.left[foreign_jobs.HAS_KEY if one.token is None else foreign_jobs.IS_KEPT] += 1
                if one.token is not None:
                    self._held.add(one.token)
                else:
                    self._staying += 1
        return ids

    def _count(self, moved: Sequence[tuple[ForeignJob, ImportedJob]]) -> None:
        self._report.imported.update((job.kind, one.job.queue or self._queue) for job, one in moved)
        self._report.dead += sum(one.error is not None for _, one in moved)
