"""SyncForge: a forge for threads without an event loop, such as those of Flask, Django, gunicorn and scripts."""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Iterable, Sequence
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, overload
from weakref import WeakSet

from forge_jobs import client
from forge_jobs.client.declarations import Declarations
from forge_jobs.client.enqueue import require_sync
from forge_jobs.client.made_ready import made_ready
from forge_jobs.client.signals import Signaller
from forge_jobs.codecs.encoded import Payload
from forge_jobs.errors import InvalidInput
from forge_jobs.handlers.options import UNSET, OptionValues
from forge_jobs.handlers.sync_connection import at_once
from forge_jobs.handlers.type_variables import R
from forge_jobs.model.job import Enqueued, NewJob
from forge_jobs.model.moments import as_duration
from forge_jobs.rules import names
from forge_jobs.sync.sync_producer import SyncProducer
from forge_jobs.sync.sync_signals import SyncSignals
from forge_jobs.system.begun import require_begun
from forge_jobs.telemetry.events import DatabaseCaveat, MigrationWaits

if TYPE_CHECKING:
    from forge_jobs.forge import Forge
    from forge_jobs.settings.environment import Settings
    from forge_jobs.storage.interface.storage import Storage
    from forge_jobs.sync.crons import SyncCrons
    from forge_jobs.sync.flows import SyncFlows
    from forge_jobs.sync.groups import SyncGroups
    from forge_jobs.sync.interventions import SyncInterventions
    from forge_jobs.sync.jobs import SyncJobs
    from forge_jobs.sync.kinds import SyncKinds
    from forge_jobs.sync.limits import SyncLimits
    from forge_jobs.sync.operations import SyncOperations
    from forge_jobs.sync.owners import SyncOwners
    from forge_jobs.sync.queues import SyncQueues
    from forge_jobs.sync.statistics import SyncStatistics
    from forge_jobs.sync.tenants import SyncTenants
    from forge_jobs.sync.workers import SyncWorkers

T = TypeVar("T")


class SyncForge(SyncSignals):
    """What `forge.sync` is: the calls of a forge, done when they return, in any thread that runs no event loop.

    There is nothing to open: the first call of a process, or of a forked child, connects, migrates when that is allowed,
    and declares what handlers say. PostgreSQL is reached by psycopg 3, over connections that the threads share.
    """

    def __init__(self, forge: "Forge", make_storage: Callable[[], "Storage"]) -> None:
        self._forge = forge
        self._make_storage = make_storage
        self._storage: Storage | None = None
        self._opening = threading.RLock()
        self._is_open = False
        _all.add(self)

    @property
    def settings(self) -> "Settings":
        """Those of the forge."""
        return self._forge.settings

    @property
    def storage(self) -> "Storage":
        """The database, none of whose calls suspends. Raises InvalidSetting, and InvalidInput when psycopg is missing."""
        if self._storage is None:
            with self._opening:
                if self._storage is None:
                    self._storage = self._make_storage()
        return self._storage

    @property
    def _signaller(self) -> Signaller:
        return SyncProducer(self)

    @property
    def forge(self) -> "Forge":
        """The forge whose handlers it enqueues for."""
        return self._forge

    def open(self, *, migrate: bool | None = None, declare: bool = True) -> None:
        """The database is open, as by `forge.open`; other calls do it by themselves. An open one stays as it is."""
        self._refuse_loop()
        require_begun()
        if self._is_open:
            return
        with self._opening:
            if not self._is_open:
                at_once(self._open(migrate, declare))
                self._is_open = True

    async def _open(self, migrate: bool | None, declare: bool) -> None:
        storage, telemetry = self.storage, self._forge.telemetry
        await storage.open()
        try:
            if storage.caveat is not None:
                telemetry.emit(DatabaseCaveat(storage.caveat))
            allowed = self.settings.auto_migrate if migrate is None else migrate
            await made_ready(
                storage,
                migrate=allowed,
                waits=lambda why, retry_in: telemetry.emit(MigrationWaits(why, retry_in)),
            )
            if declare:
                declarations = Declarations(self._forge.handlers, telemetry)
                await declarations.ensure_queues(storage)
                await declarations.publish(storage)
        except BaseException:
            await storage.close()
            raise

    def close(self) -> None:
        """No connection is open but those that other threads use at this moment, which they close. The next call opens it again."""
        with self._opening:
            self._is_open = False
            if self._storage is not None:
                at_once(self._storage.close())

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def do(self, work: Coroutine[Any, Any, T], connection: Any = None) -> T:
        """Return what `work`, which uses the storage of `forge.sync`, comes to; it is opened first if need be.

        Nothing is opened for work in the transaction of a caller's `connection`. Raises InvalidInput for one that has to be awaited.
        """
        try:
            if connection is None:
                self.open()
            else:
                require_sync(connection, "forge.sync")
        except BaseException:
            work.close()
            raise
        return at_once(work)

    def forget(self) -> None:
        """Nothing is open here, and nobody opens it at this moment: so it is in a forked child."""
        self._is_open, self._opening = False, threading.RLock()

    def _refuse_loop(self) -> None:
        if asyncio._get_running_loop() is not None:
            raise InvalidInput(
                "forge.sync is used in an event loop, which would stand still meanwhile; allowed there is await "
                "forge.enqueue(...) and the like, or forge.sync in a thread: await asyncio.to_thread(...)."
            )

    def enqueue(self, kind: str, payload: Payload | None = None, **options: Unpack[OptionValues]) -> Enqueued:
        """A job of `kind` waits, as by `forge.enqueue`; with `connection`, in the transaction of that one."""
        return self._forge.enqueue_sync(kind, payload, **options)

    def enqueue_many(
        self, kind: str, payloads: Sequence[Payload], **options: Unpack[OptionValues]
    ) -> list[Enqueued]:
        """One job for each of `payloads` waits, or none; answers are in their order."""
        return self._forge.enqueue_many_sync(kind, payloads, **options)

    def enqueue_batch(self, jobs: Iterable[NewJob], *, connection: Any = UNSET) -> list[Enqueued]:
        """All of `jobs`, which `job` of a handler or of the forge has made, wait, or none; answers are in their order."""
        return self._forge.enqueue_batch_sync(jobs, connection=connection)

    @overload
    def wait(self, job: Enqueued[R], *, timeout: timedelta | float | None = None) -> R: ...

    @overload
    def wait(self, job: int, *, timeout: timedelta | float | None = None) -> Any: ...

    @overload
    def wait(
        self, job: int | Enqueued[Any], *, returns: type[T], timeout: timedelta | float | None = None
    ) -> T: ...

    def wait(
        self, job: int | Enqueued[Any], *, returns: Any = None, timeout: timedelta | float | None = None
    ) -> Any:
        """Return the result of the job once it is done, as `forge.wait` does; the thread waits, and holds no connection."""
        [result] = self.do(self._wait_all([job], returns, timeout, False))
        return result

    @overload
    def wait_all(
        self, jobs: Iterable[Enqueued[R]], *, timeout: timedelta | float | None = None
    ) -> list[R]: ...

    @overload
    def wait_all(
        self,
        jobs: Iterable[int | Enqueued[Any]],
        *,
        returns: type[T],
        timeout: timedelta | float | None = None,
    ) -> list[T]: ...

    @overload
    def wait_all(
        self,
        jobs: Iterable[int | Enqueued[Any]],
        *,
        returns: Any = None,
        timeout: timedelta | float | None = None,
        return_exceptions: bool = False,
    ) -> list[Any]: ...

    def wait_all(
        self,
        jobs: Iterable[int | Enqueued[Any]],
        *,
        returns: Any = None,
        timeout: timedelta | float | None = None,
        return_exceptions: bool = False,
    ) -> list[Any]:
        """Return the results of all these jobs, in their order, once all have ended, as `forge.wait_all` does."""
        return self.do(self._wait_all(names.listed(jobs, "jobs"), returns, timeout, return_exceptions))

    async def _wait_all(
        self,
        jobs: Iterable[int | Enqueued[Any]],
        returns: Any,
        timeout: timedelta | float | None,
        return_exceptions: bool,
    ) -> list[Any]:
        from forge_jobs.client.results import results  # few programs wait
        from forge_jobs.client.waits import main_reason
        from forge_jobs.sync.sync_waits import ended

        job_ids, limit = [names.job_id(job) for job in jobs], as_duration(timeout, "timeout")
        telemetry, why = self._forge.telemetry, main_reason(self._jobs.why)
        ends = await ended(self.storage.ends, telemetry, job_ids, limit, why)
        return results(job_ids, ends, returns, return_exceptions=return_exceptions)

    @property
    def _jobs(self) -> "client.Jobs":
        return client.Jobs(
            self.storage,
            stale=self.settings.stale,
            encode=self._forge.encoded,
            redacted=self._forge.redacted,
        )

    @property
    def jobs(self) -> "SyncJobs":
        """Get, list, cancel, retry, delete and explain jobs."""
        from forge_jobs.sync.jobs import SyncJobs

        return SyncJobs(self._jobs, self)

    @property
    def operations(self) -> "SyncOperations":
        """Start bulk operations on jobs, look at them, wait for them, cancel them."""
        from forge_jobs.sync.operations import SyncOperations

        return SyncOperations(client.Operations(self.storage), self)

    @property
    def queues(self) -> "SyncQueues":
        """List, set, pause and resume queues."""
        from forge_jobs.sync.queues import SyncQueues

        return SyncQueues(client.Queues(self.storage), self)

    @property
    def crons(self) -> "SyncCrons":
        """List, set, enable, disable, trigger and delete crons."""
        from forge_jobs.sync.crons import SyncCrons

        return SyncCrons(client.Crons(self.storage, self._forge.handlers), self)

    @property
    def kinds(self) -> "SyncKinds":
        """List what all programs declare of the kinds of jobs that they have handlers for."""
        from forge_jobs.sync.kinds import SyncKinds

        return SyncKinds(client.Kinds(self.storage), self)

    @property
    def flows(self) -> "SyncFlows":
        """Start, get, list, retry, cancel and wait for flows."""
        from forge_jobs.sync.flows import SyncFlows
        from forge_jobs.sync.sync_waits import ended

        flow_ends = partial(ended, self.storage.flow_ends, self._forge.telemetry)
        return SyncFlows(client.Flows(self._forge, self.storage, flow_ends), self)

    @property
    def groups(self) -> "SyncGroups":
        """List groups of jobs, and set their limits."""
        from forge_jobs.sync.groups import SyncGroups

        return SyncGroups(client.Groups(self.storage), self)

    @property
    def tenants(self) -> "SyncTenants":
        """List the tenants of queues, and set their weights."""
        from forge_jobs.sync.tenants import SyncTenants

        return SyncTenants(client.Tenants(self.storage), self)

    @property
    def limits(self) -> "SyncLimits":
        """List, set, empty and delete rate limits."""
        from forge_jobs.sync.limits import SyncLimits

        return SyncLimits(client.Limits(self.storage), self)

    @property
    def owners(self) -> "SyncOwners":
        """List and dismiss the owners that manage queues, crons and rate limits."""
        from forge_jobs.sync.owners import SyncOwners

        return SyncOwners(client.Owners(self.storage), self)

    @property
    def interventions(self) -> "SyncInterventions":
        """List what people have done by hand, and who they were."""
        from forge_jobs.sync.interventions import SyncInterventions

        return SyncInterventions(client.Interventions(self.storage), self)

    @property
    def workers(self) -> "SyncWorkers":
        """List workers, and give them up."""
        from forge_jobs.sync.workers import SyncWorkers

        return SyncWorkers(client.Workers(self.storage, stale=self.settings.stale), self)

    @property
    def statistics(self) -> "SyncStatistics":
        """Read what attempts came to, by queue, kind and minute."""
        from forge_jobs.sync.statistics import SyncStatistics

        return SyncStatistics(client.Statistics(self.storage), self)


_all: WeakSet[SyncForge] = WeakSet()


def _forget_all() -> None:
    for sync in _all:
        sync.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
