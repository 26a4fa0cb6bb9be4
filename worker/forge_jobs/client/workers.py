"""Workers: who is alive, who leads, and who is given up."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

from forge_jobs.client.acting import who_acts
from forge_jobs.errors import InvalidInput, Managed
from forge_jobs.model.moments import as_duration
from forge_jobs.model.worker import Leader, LostWorker, WorkerInfo
from forge_jobs.rules import names
from forge_jobs.rules.duration import in_words
from forge_jobs.rules.words import QUIET
from forge_jobs.storage.interface.storage import Storage


class Workers:
    """The registered workers, as the database knows them. Reached as `forge.workers`."""

    def __init__(self, storage: Storage, *, stale: timedelta) -> None:
        self._storage = storage
        self._stale = stale

    async def list(self) -> Sequence[WorkerInfo]:
        """Return the registered workers by label."""
        return await self._storage.workers.all()

    async def handled(self) -> Mapping[str, frozenset[str]]:
        """Return, by queue, the kinds for which those who serve it have handlers: workers that may claim, and versions that may.

        A version that sleeps counts by what its workers had. A queue is left out when it is not known: nobody
        serves it, or a version that is to serve it has had no worker yet.
        """
        return await self._storage.workers.handled()

    async def leader(self) -> Leader | None:
        """Return the worker that does the chores now; None when nobody leads."""
        return await self._storage.leadership.get()

    async def sweep(
        self, *, stale: timedelta | float | None = None, dry_run: bool = False
    ) -> Sequence[LostWorker]:
        """Workers that were not heard from for `stale` are given up, as by `give_up`; return them with their jobs.

        `stale` is a timedelta or seconds, by the database's clock; None: as long as the settings say. With
        `dry_run` nothing changes, and those that would be given up are returned. The leading worker does the same
        by itself, and more carefully: this is for when no worker leads, or not to wait for it. Raises InvalidInput.
        """
        silence = max(self._stale, QUIET) if stale is None else as_duration(stale, "stale")
        if silence is None or silence < QUIET:
            raise InvalidInput(f"stale is {stale!r}, allowed is {in_words(QUIET)} or more.")
        now = (await self._storage.workers.beats()).now
        silent = [
            worker
            for worker in await self._storage.workers.all()
            if worker.beat_at is not None and now - worker.beat_at > silence
        ]
        return await self._given_up(silent, dry_run=dry_run)

    async def give_up(self, workers: Iterable[int | str], *, dry_run: bool = False) -> Sequence[LostWorker]:
        """These workers, by ids or labels, are lost, though they may live; return them with their jobs.

        They can claim and write nothing more, and the leading worker takes their jobs back within seconds. One that
        lives hears of it at its next heartbeat, stops its handlers, and begins anew under another id; until
        then its jobs may run twice. One that says that it lives in this very moment stays, and is not returned. Raises
        InvalidInput when there is no such worker; then nothing changes.
        """
        return await self._given_up(await self._named(workers), dry_run=dry_run)

    async def pause(self, workers: Iterable[int | str]) -> Sequence[WorkerInfo]:
        """These workers, by ids or labels, claim nothing new within seconds; return them. What they run goes on.

        Jobs that they have claimed and not begun are handed back. It holds until `resume`, or until the process
        of a worker ends, also when that begins anew under another id. Raises InvalidInput when there is no such worker, and Managed when an operator
        runs one; then nothing changes.
        """
        return await self._paused(workers, True)

    async def resume(self, workers: Iterable[int | str]) -> Sequence[WorkerInfo]:
        """These workers, by ids or labels, claim again; return them. Raises as `pause`."""
        return await self._paused(workers, False)

    async def _paused(self, workers: Iterable[int | str], paused: bool) -> Sequence[WorkerInfo]:
        wanted = await self._named(workers)
        for worker in wanted:
            if worker.pool is not None:
                raise Managed(f"Worker {worker.label}", "the operator of its pool")
        done = await self._storage.workers.pause([worker.id for worker in wanted], paused, by=who_acts())
        return [worker for worker in wanted if worker.id in done]

    async def _named(self, workers: Iterable[int | str]) -> Sequence[WorkerInfo]:
        """Return the workers with these ids or labels, each once. Raises InvalidInput."""
        registered = await self._storage.workers.all()
        named: dict[int | str, WorkerInfo] = {worker.label: worker for worker in registered}
        named |= {worker.id: worker for worker in registered}
        wanted = names.listed(workers, "workers")
        for name in wanted:
            if name not in named:
                raise InvalidInput(
                    f"There is no worker {names.shown(name)}; forge-jobs workers list shows who is there."
                )
        return list({named[name].id: named[name] for name in wanted}.values())

    async def _given_up(self, workers: Sequence[WorkerInfo], *, dry_run: bool) -> Sequence[LostWorker]:
        each = [
            LostWorker(
                worker,
                tuple(claim.job_id for claim in await self._storage.claims.held(worker.id)),
            )
            for worker in workers
        ]
        if dry_run or not each:
            return each
        seen = {worker.id: worker.beat_at for worker in workers if worker.beat_at is not None}
        gone = await self._storage.workers.give_up(seen, by=who_acts())
        return [one for one in each if one.worker.id in gone]
