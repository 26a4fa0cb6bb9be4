"""Forge: what a user's program holds; its handlers, its database, and the way to both."""

import asyncio
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, overload

from forge_jobs import client
from forge_jobs.client.closing import closing
from forge_jobs.client.declarations import Declarations
from forge_jobs.client.enqueue import Producer
from forge_jobs.client.made_ready import check_schema, made_ready
from forge_jobs.client.signals import Signaller
from forge_jobs.client.strange_kinds import StrangeKinds
from forge_jobs.errors import InvalidInput
from forge_jobs.handlers.context import T, answered
from forge_jobs.handlers.decorator import HandlerDecorator
from forge_jobs.handlers.handler import Handlers
from forge_jobs.handlers.type_variables import R
from forge_jobs.model.job import Enqueued
from forge_jobs.model.moments import as_duration
from forge_jobs.plugins.dependencies import Dependencies
from forge_jobs.plugins.extending import Extensible
from forge_jobs.plugins.plugins import Plugins
from forge_jobs.rules import names
from forge_jobs.storage.home import Home, Turn
from forge_jobs.sync.forge_databases import ForgeDatabases
from forge_jobs.system.begun import require_begun
from forge_jobs.telemetry import events
from forge_jobs.telemetry.telemetry import Telemetry

if TYPE_CHECKING:
    from forge_jobs.client.waits import Reason, Waits
    from forge_jobs.model.flow import FlowStatus
    from forge_jobs.settings.environment import Settings
    from forge_jobs.storage.interface.ends import AwaitedEnds
    from forge_jobs.storage.interface.storage import Storage


class Forge(ForgeDatabases, Producer, Signaller, HandlerDecorator, Extensible):
    """Handlers and a database. `async with forge:` opens it; its handlers may be declared before.

    `url` is a database URL; when None, the settings say which database (FORGE_DATABASE_URL_FILE
    or FORGE_DATABASE_URL, else queue_database.toml, else SQLite in ./jobs/data).
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        schema: str | None = None,
        settings: "Settings | None" = None,
        storage: "Storage | None" = None,
    ) -> None:
        ForgeDatabases.__init__(self, url, schema, settings, storage)
        self._opened = 0
        self._held = 0  # how often, of these, by workers that run
        self._home: Home | None = None  # where it is open; None: nowhere
        self._turn = Turn()  # one opens or closes at a time
        self._waits: dict[str, Waits[Any]] = {}  # by what they wait for
        self._at_close: list[Callable[[], Awaitable[None]]] = []
        self.handlers = Handlers()
        self.telemetry = Telemetry()
        self.plugins, self.dependencies = Plugins(self.telemetry), Dependencies(self.telemetry)
        self.strange_kinds = StrangeKinds(self.telemetry)
        self._declarations = Declarations(self.handlers, self.telemetry)

    @property
    def jobs(self) -> "client.Jobs":
        """Get, list, cancel, retry, delete and explain jobs."""
        return client.Jobs(
            self.storage, stale=self.settings.stale, encode=self.encoded, redacted=self.redacted
        )

    @property
    def operations(self) -> "client.Operations":
        """Start bulk operations on jobs, look at them, wait for them, cancel them."""
        return client.Operations(self.storage)

    @property
    def queues(self) -> "client.Queues":
        """List, set, pause and resume queues."""
        return client.Queues(self.storage)

    @property
    def crons(self) -> "client.Crons":
        """List, set, enable, disable, trigger and delete crons."""
        return client.Crons(self.storage, self.handlers)

    @property
    def kinds(self) -> "client.Kinds":
        """List what all programs declare of the kinds of jobs that they have handlers for."""
        return client.Kinds(self.storage)

    @property
    def flows(self) -> "client.Flows":
        """Start, get, list, retry, cancel and wait for flows."""
        return client.Flows(self, self.storage, self._ended_flows)

    @property
    def groups(self) -> "client.Groups":
        """List groups of jobs, and set their limits."""
        return client.Groups(self.storage)

    @property
    def tenants(self) -> "client.Tenants":
        """List the tenants of queues, and set their weights."""
        return client.Tenants(self.storage)

    @property
    def limits(self) -> "client.Limits":
        """List, set, empty and delete rate limits."""
        return client.Limits(self.storage)

    @property
    def owners(self) -> "client.Owners":
        """List and dismiss the owners that manage queues, crons and rate limits."""
        return client.Owners(self.storage)

    @property
    def interventions(self) -> "client.Interventions":
        """List what people have done by hand, and who they were."""
        return client.Interventions(self.storage)

    @property
    def workers(self) -> "client.Workers":
        """List workers, and give them up."""
        return client.Workers(self.storage, stale=self.settings.stale)

    @property
    def statistics(self) -> "client.Statistics":
        """Read what attempts came to, by queue, kind and minute."""
        return client.Statistics(self.storage)

    @property
    def versions(self) -> "client.Versions":
        """Versions of worker pools, and the gates that let them claim; for operators."""
        return client.Versions(self.storage)

    def watch(self, queues: Iterable[str]) -> AsyncGenerator[str, None]:
        """Give the name of a queue whenever it may have work, within milliseconds of an enqueue, until closed.

        The name comes again every five seconds while jobs of the queue are pending. Outages of
        the database are waited for. Raises InvalidInput, and at the first name UnknownQueue, NotOpenHere, or
        StorageUnavailable when the forge is not open; so does a watch that goes on when it is closed. A watched queue
        costs its producers a little, so watch those that nobody serves; `contextlib.aclosing` ends the watch in time.
        """
        from forge_jobs.client.watch import watch  # few programs watch

        wanted = [names.queue(queue) for queue in names.listed(queues, "queues")]
        return watch(self.storage, self.telemetry, wanted, lambda: self._opened > 0)

    async def open(self, *, migrate: bool | None = None, declare: bool = True) -> None:
        """The database is open and its schema is that of this release.

        It is migrated when need be, unless `migrate` (default: FORGE_AUTO_MIGRATE) is
        false: then SchemaOutdated is raised. Queues that handlers name exist, and what
        handlers declare is published, unless `declare` is false: for programs that only look. Open for one task is open for all of the event loop: it is
        closed when each of them has closed it. Raises NotOpenHere while another event loop has it
        open; a child that was forked, or a loop that comes after one that ended, opens it anew.
        Raises InvalidInput in a process that was started for one function and only imports the program.
        """
        require_begun()
        async with self._entered():
            if not self._opened:
                try:
                    await self._open(migrate, declare)
                except BaseException:
                    await self._shut()
                    raise
            self._opened += 1

    async def _open(self, migrate: bool | None, declare: bool) -> None:
        await self.storage.open()
        if self.storage.caveat is not None:
            self.telemetry.emit(events.DatabaseCaveat(self.storage.caveat))
        allowed = self.settings.auto_migrate if migrate is None else migrate
        await made_ready(self.storage, migrate=allowed, waits=self._migration_waits)
        if declare:
            await self.ensure_queues()
            await self.publish()
        await self.plugins.start(self)

    @asynccontextmanager
    async def _entered(self) -> AsyncIterator[None]:
        """One task at a time opens or closes, and only in the event loop where it is open."""
        self._look_where_it_is_open()
        async with self._turn.of_loop():
            self._look_where_it_is_open()
            self._home = self._home or Home()
            try:
                yield
            finally:
                if not self._opened:
                    self._home = None

    def _look_where_it_is_open(self) -> None:
        if self._home is None:
            return
        if self._home.is_gone:
            self._home, self._opened, self._waits = None, 0, {}
            for part in (self._declarations, self.plugins, self.dependencies):
                part.forget()
        else:
            self._home.check("This Forge")

    def _migration_waits(self, why: str, retry_in: float) -> None:
        self.telemetry.emit(events.MigrationWaits(why, retry_in))

    async def check_schema(self) -> None:
        """Raise SchemaOutdated or SchemaTooNew when the schema is not that of this release."""
        await check_schema(self.storage)

    async def ensure_queues(self, *more: str) -> None:
        """The queues that handlers name, and `more`, exist.

        For each of `more` that is new and that no handler names, an event says so, and which name it resembles.
        """
        await self._declarations.ensure_queues(self.storage, *more)

    async def new_queues(self, *wanted: str) -> dict[str, str | None]:
        """Return those of `wanted` that do not exist and that no handler names, each with the name that it resembles."""
        return await self._declarations.new_queues(self.storage, *wanted)

    async def publish(self) -> None:
        """What handlers declare holds for jobs of their kinds that others enqueue by name.

        The program that published last wins. Nothing is written when the database has it already; when it
        may not be written, an event says so.
        """
        await self._declarations.publish(self.storage)

    async def close(self, *, grace: timedelta | float | None = None) -> None:
        """The database is closed once this was called as often as `open`; further calls do nothing. Raises
        NotOpenHere. A worker that runs keeps it open, no matter what its handlers close.

        The functions of `at_close` have `grace` (seconds or a timedelta; None: that of the settings) together.
        """
        given = as_duration(grace, "grace")
        async with self._entered():
            if self._opened > max(1, self._held):
                self._opened -= 1
            elif self._held:
                return
            elif self._opened:
                await self._shut(given)
            elif self._storage is not None:
                await self._storage.close()

    async def _shut(self, grace: timedelta | None = None) -> None:
        self._opened = 0
        self._declarations.forget()
        async with AsyncExitStack() as stack:
            for waits in self._waits.values():
                stack.push_async_callback(waits.close)
            if self._storage is not None:
                stack.push_async_callback(self._storage.close)
            functions = [*self.plugins.stops(self), *self._at_close, *self.dependencies.closers()]
            if functions:
                seconds = (self.settings.grace if grace is None else grace).total_seconds()
                until = time.monotonic() + seconds
                for function in functions:
                    stack.push_async_callback(closing, function, until, self.telemetry)

    @contextmanager
    def held(self) -> Iterator[None]:
        """One of its openings cannot be closed meanwhile."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    def at_close(self, function: Callable[[], Awaitable[None]]) -> None:
        """`function` is awaited whenever the forge is closed, before its database is; the last one first.

        After 5 s an event says what is waited for. What has not ended by the end of the grace is
        cancelled, which an event says too, and left behind if it goes on all the same.

        It is for what handlers share, such as a client or a connection pool that was made when first needed.
        """
        self._at_close.append(function)

    @contextmanager
    def using(self, storage: "Storage", make_sync: "Callable[[], Storage] | None" = None) -> Iterator[None]:
        """Inside the block, `storage` is the database, and for threads without an event loop what `make_sync` returns. Raises InvalidInput while the forge is open."""
        self._look_where_it_is_open()
        if self._opened:
            raise InvalidInput(
                "This Forge is open, allowed is another database before `open` or after `close`."
            )
        before = self._storage, self._storage_given, self._make_sync, self._sync
        self._storage, self._storage_given, self._make_sync = storage, True, make_sync
        self._sync, self._waits = {}, {}
        try:
            yield
        finally:
            for sync in self._sync.values():
                sync.close()
            self._storage, self._storage_given, self._make_sync, self._sync = before
            self._waits = {}

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @overload
    def wait(
        self, job: Enqueued[R], *, timeout: timedelta | float | None = None
    ) -> Coroutine[Any, Any, R]: ...

    @overload
    def wait(self, job: int, *, timeout: timedelta | float | None = None) -> Coroutine[Any, Any, Any]: ...

    @overload
    def wait(
        self, job: int | Enqueued[Any], *, returns: type[T], timeout: timedelta | float | None = None
    ) -> Coroutine[Any, Any, T]: ...

    def wait(
        self, job: int | Enqueued[Any], *, returns: Any = None, timeout: timedelta | float | None = None
    ) -> Coroutine[Any, Any, Any]:
        """Return the result of the job, an id or what `enqueue` returned, once it is done; to be awaited as `enqueue`.

        With `returns`, a type as handlers take them, the result is one of these. An outage of the database is waited for.
        Raises JobDead when the job ends dead or expired, WaitTimeout after `timeout` (seconds or timedelta; then it can be
        waited for again), JobNotFound when it is unknown or its queue keeps nothing, UnfitPayload when
        the result is no such type, InvalidInput.
        """
        return answered(self, self._wait(job, returns, timeout), "forge.wait")

    @overload
    def wait_all(
        self, jobs: Iterable[Enqueued[R]], *, timeout: timedelta | float | None = None
    ) -> Coroutine[Any, Any, list[R]]: ...

    @overload
    def wait_all(
        self,
        jobs: Iterable[int | Enqueued[Any]],
        *,
        returns: type[T],
        timeout: timedelta | float | None = None,
    ) -> Coroutine[Any, Any, list[T]]: ...

    @overload
    def wait_all(
        self,
        jobs: Iterable[int | Enqueued[Any]],
        *,
        returns: Any = None,
        timeout: timedelta | float | None = None,
        return_exceptions: bool = False,
    ) -> Coroutine[Any, Any, list[Any]]: ...

    def wait_all(
        self,
        jobs: Iterable[int | Enqueued[Any]],
        *,
        returns: Any = None,
        timeout: timedelta | float | None = None,
        return_exceptions: bool = False,
    ) -> Coroutine[Any, Any, list[Any]]:
        """Return the results of all these jobs, in their order, once all have ended; as `wait`, which see.

        When one is dead, JobDead is raised of the first of these; with `return_exceptions`, each error stands in the place of
        its result instead. WaitTimeout names the first job that had not ended.
        """
        return answered(
            self,
            self._wait_all(names.listed(jobs, "jobs"), returns, timeout, return_exceptions),
            "forge.wait_all",
        )

    async def _wait(self, job: int | Enqueued[Any], returns: Any, timeout: timedelta | float | None) -> Any:
        [result] = await self._wait_all([job], returns, timeout, False)
        return result

    async def _wait_all(
        self,
        jobs: Iterable[int | Enqueued[Any]],
        returns: Any,
        timeout: timedelta | float | None,
        return_exceptions: bool,
    ) -> list[Any]:
        from forge_jobs.client.results import results  # few programs wait
        from forge_jobs.client.waits import main_reason

        job_ids, limit = [names.job_id(job) for job in jobs], as_duration(timeout, "timeout")
        ends = await self._waits_for(self.storage.ends).ended(job_ids, limit, main_reason(self.jobs.why))
        return results(job_ids, ends, returns, return_exceptions=return_exceptions)

    async def _ended_flows(
        self, flow_ids: Sequence[int], limit: timedelta | None, why: "Reason"
    ) -> "Sequence[FlowStatus | None]":
        return await self._waits_for(self.storage.flow_ends).ended(flow_ids, limit, why)

    def _waits_for(self, ends: "AwaitedEnds[T]") -> "Waits[T]":
        from forge_jobs.client.waits import Waits

        waits = self._waits.get(ends.subject)
        if waits is None or waits.loop is not asyncio.get_running_loop():
            waits = Waits(ends, self.storage.wakeups, self.telemetry, lambda: self._opened > 0)
            self._waits[ends.subject] = waits
        return waits
