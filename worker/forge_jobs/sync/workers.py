"""`forge.sync.workers`: what `forge.workers` does, without an event loop. Written by worker/tests/test_sync_nouns.py."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

from forge_jobs.client.workers import Workers
from forge_jobs.model.worker import Leader, LostWorker, WorkerInfo
from forge_jobs.sync.noun import SyncNoun


class SyncWorkers(SyncNoun[Workers]):
    """The registered workers, as the database knows them. Reached as `forge.sync.workers`."""

    def list(self) -> Sequence[WorkerInfo]:
        """Return the registered workers by label."""
        return self._do(self._noun.list())

    def handled(self) -> Mapping[str, frozenset[str]]:
        """Return, by queue, the kinds for which those who serve it have handlers: workers that may claim, and versions that may.

        A version that sleeps counts by what its workers had. A queue is left out when it is not known: nobody
        serves it, or a version that is to serve it has had no worker yet.
        """
        return self._do(self._noun.handled())

    def leader(self) -> Leader | None:
        """Return the worker that does the chores now; None when nobody leads."""
        return self._do(self._noun.leader())

    def sweep(self, *, stale: timedelta | float | None = None, dry_run: bool = False) -> Sequence[LostWorker]:
        """Workers that were not heard from for `stale` are given up, as by `give_up`; return them with their jobs.

        `stale` is a timedelta or seconds, by the database's clock; None: as long as the settings say. With
        `dry_run` nothing changes, and those that would be given up are returned. The leading worker does the same
        by itself, and more carefully: this is for when no worker leads, or not to wait for it. Raises InvalidInput.
        """
        return self._do(self._noun.sweep(stale=stale, dry_run=dry_run))

    def give_up(self, workers: Iterable[int | str], *, dry_run: bool = False) -> Sequence[LostWorker]:
        """These workers, by ids or labels, are lost, though they may live; return them with their jobs.

        They can claim and write nothing more, and the leading worker takes their jobs back within seconds. One that
        lives hears of it at its next heartbeat, stops its handlers, and begins anew under another id; until
        then its jobs may run twice. One that says that it lives in this very moment stays, and is not returned. Raises
        InvalidInput when there is no such worker; then nothing changes.
        """
        return self._do(self._noun.give_up(workers, dry_run=dry_run))

    def pause(self, workers: Iterable[int | str]) -> Sequence[WorkerInfo]:
        """These workers, by ids or labels, claim nothing new within seconds; return them. What they run goes on.

        Jobs that they have claimed and not begun are handed back. It holds until `resume`, or until the process
        of a worker ends, also when that begins anew under another id. Raises InvalidInput when there is no such worker, and Managed when an operator
        runs one; then nothing changes.
        """
        return self._do(self._noun.pause(workers))

    def resume(self, workers: Iterable[int | str]) -> Sequence[WorkerInfo]:
        """These workers, by ids or labels, claim again; return them. Raises as `pause`."""
        return self._do(self._noun.resume(workers))
