"""Jobs in PostgreSQL 14 or newer, through asyncpg. Each noun has a file, and reaches the database by `connection`."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import cast

from forge_jobs.errors import InvalidInput
from forge_jobs.settings.database_file import CONNECTIONS, OUTSIDE_THE_POOL
from forge_jobs.storage.interface.ends import ThreadsEar
from forge_jobs.storage.interface.storage import Storage
from forge_jobs.storage.moving import Arrival
from forge_jobs.storage.postgres.ageing import PostgresAgeing
from forge_jobs.storage.postgres.arrival import PostgresArrival
from forge_jobs.storage.postgres.audit import PostgresAudit
from forge_jobs.storage.postgres.chores import PostgresChores
from forge_jobs.storage.postgres.claims import PostgresClaims
from forge_jobs.storage.postgres.clocked import ClockedDatabase, keep_own_clock
from forge_jobs.storage.postgres.completions import PostgresCompletions
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.connections_left import connections_left
from forge_jobs.storage.postgres.corrections import PostgresCorrections
from forge_jobs.storage.postgres.crons import PostgresCrons
from forge_jobs.storage.postgres.ends import PostgresEnds
from forge_jobs.storage.postgres.fires import PostgresFires
from forge_jobs.storage.postgres.flow_ends import PostgresFlowEnds
from forge_jobs.storage.postgres.flows import PostgresFlows
from forge_jobs.storage.postgres.groups import PostgresGroups
from forge_jobs.storage.postgres.history import PostgresHistory
from forge_jobs.storage.postgres.imports import PostgresImports
from forge_jobs.storage.postgres.interventions import PostgresInterventions
from forge_jobs.storage.postgres.jobs import PostgresJobs
from forge_jobs.storage.postgres.keys import PostgresKeys
from forge_jobs.storage.postgres.kinds import PostgresKinds
from forge_jobs.storage.postgres.leadership import PostgresLeadership
from forge_jobs.storage.postgres.limits import PostgresLimits
from forge_jobs.storage.postgres.operations import PostgresOperations
from forge_jobs.storage.postgres.owners import PostgresOwners
from forge_jobs.storage.postgres.permits import PostgresPermits
from forge_jobs.storage.postgres.pins import PostgresPins
from forge_jobs.storage.postgres.progress import PostgresProgress
from forge_jobs.storage.postgres.queues import PostgresQueues
from forge_jobs.storage.postgres.removals import PostgresRemovals
from forge_jobs.storage.postgres.saved_states import PostgresSavedStates
from forge_jobs.storage.postgres.schedule import PostgresSchedule
from forge_jobs.storage.postgres.schema import PostgresSchema
from forge_jobs.storage.postgres.signals import PostgresSignals
from forge_jobs.storage.postgres.slots import PostgresSlots
from forge_jobs.storage.postgres.statistics import PostgresStatistics
from forge_jobs.storage.postgres.steps import PostgresSteps
from forge_jobs.storage.postgres.tenants import PostgresTenants
from forge_jobs.storage.postgres.time_limits import PostgresTimeLimits
from forge_jobs.storage.postgres.tokens import PostgresTokens
from forge_jobs.storage.postgres.versions import PostgresVersions
from forge_jobs.storage.postgres.wakeups import PostgresWakeups
from forge_jobs.storage.postgres.workers import PostgresWorkers


def _class_of_database(*, is_sync: bool, own_clock: bool) -> type[PostgresDatabase]:
    if not is_sync:
        return ClockedDatabase if own_clock else PostgresDatabase
    try:
        from forge_jobs.storage.postgres.sync_database import SyncPostgresDatabase
    except ImportError as error:
        raise InvalidInput(
            f"Without an event loop PostgreSQL is reached by psycopg 3, which cannot be imported ({error}); "
            "run: pip install 'forge-jobs[sync]'"
        ) from error
    return SyncPostgresDatabase


def _ear_of(database: PostgresDatabase) -> ThreadsEar:
    from forge_jobs.storage.postgres.sync_ear import SyncEar  # psycopg is there

    return SyncEar(database)


class PostgresStorage(Storage):
    """A PostgreSQL database that holds jobs in one schema; with `own_clock` by the time of that schema's `SchemaClock`."""

    def __init__(
        self,
        url: str,
        *,
        schema: str = "forge_jobs",
        pool_size: int = CONNECTIONS - OUTSIDE_THE_POOL,
        command_timeout: timedelta = timedelta(seconds=30),
        url_file: Path | None = None,
        url_changed: Callable[[str], None] = lambda url: None,
        own_clock: bool = False,
        is_sync: bool = False,
    ) -> None:
        """With `is_sync`, no call suspends, and any thread may make it. Raises InvalidInput, also when psycopg is missing."""

        def changed(url: str) -> None:
            self.url = url
            url_changed(url)

        database = _class_of_database(is_sync=is_sync, own_clock=own_clock)(
            url,
            schema=schema,
            pool_size=pool_size,
            command_timeout=command_timeout,
            url_file=url_file,
            url_changed=changed,
        )
        if is_sync and own_clock:
            keep_own_clock(database)
        self._database = database
        self.url = database.url
        self.shared = True
        self.caveat: str | None = None
        self.schema = PostgresSchema(database)
        self.jobs = PostgresJobs(database)
        self.corrections = PostgresCorrections(database)
        self.interventions = PostgresInterventions(database)
        self.imports = PostgresImports(database)
        self.keys = PostgresKeys(database)
        self.claims = PostgresClaims(database)
        self.completions = PostgresCompletions(database)
        ear = _ear_of(database) if is_sync else None
        self.ends = PostgresEnds(database, ear)
        self.saved_states = PostgresSavedStates(database)
        self.progress = PostgresProgress(database)
        self.steps = PostgresSteps(database)
        self.pins = PostgresPins(database)
        self.signals = PostgresSignals(database)
        self.schedule = PostgresSchedule(database)
        self.queues = PostgresQueues(database)
        self.slots = PostgresSlots(database)
        self.ageing = PostgresAgeing(database)
        self.groups = PostgresGroups(database)
        self.flows = PostgresFlows(database)
        self.flow_ends = PostgresFlowEnds(database, ear)
        self.tenants = PostgresTenants(database)
        self.time_limits = PostgresTimeLimits(database)
        self.kinds = PostgresKinds(database)
        self.removals = PostgresRemovals(database)
        self.limits = PostgresLimits(database)
        self.tokens = PostgresTokens(database)
        self.permits = PostgresPermits(database)
        self.crons = PostgresCrons(database)
        self.fires = PostgresFires(database)
        self.operations = PostgresOperations(database)
        self.owners = PostgresOwners(database)
        self.workers = PostgresWorkers(database)
        self.versions = PostgresVersions(database)
        self.leadership = PostgresLeadership(database)
        self.chores = PostgresChores(database)
        self.history = PostgresHistory(database)
        self.audit = PostgresAudit(database)
        self.statistics = PostgresStatistics(database)
        self.wakeups = PostgresWakeups(database)

    async def open(self) -> None:
        """Connections are open. Raises StorageUnavailable. Does not touch the schema."""
        await self._database.open()
        self.wakeups.poll_only = self._database.pooled
        encoding = await self._database.fetchval("SHOW server_encoding")
        if encoding != "UTF8":
            self.caveat = (
                f"The database {self.url} has the encoding {encoding}, allowed is UTF8 for all text: "
                "what this one cannot hold is refused when it is enqueued, and escaped in errors of jobs."
            )

    async def close(self) -> None:
        """Nothing is open any more; also right when `open` failed or was never called."""
        await self._database.close()

    async def ping(self) -> None:
        """The database answers. Raises StorageUnavailable."""
        await self._database.fetchval("SELECT 1")

    async def check_not_down(self) -> None:
        """Raise StorageDown when whoever has no connection to the database gets none."""
        await self._database.check_not_down()

    def met_down(self) -> tuple[float, float] | None:
        """Return when the first and the last try of this process were begun that met a database which is down."""
        return self._database.downtime.met

    async def now(self) -> datetime:
        """Return the database's time."""
        return cast(datetime, await self._database.fetchval("SELECT now()"))

    def arrival(self) -> Arrival:
        """Return the database as one that is moved to."""
        return PostgresArrival(self._database)

    async def connections_left(self) -> int | None:
        """Return how many more connections the server gives now to a role like ours; None where that cannot be said."""
        return await connections_left(self._database)
