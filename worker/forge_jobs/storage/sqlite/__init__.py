"""Jobs in a SQLite file, through the standard library. Each noun has a file, and reaches the database by `connection`."""

from collections.abc import Callable
from datetime import datetime

from forge_jobs.errors import InvalidInput
from forge_jobs.settings.database_url import MEMORY
from forge_jobs.storage.interface.storage import Storage
from forge_jobs.storage.sqlite.ageing import SqliteAgeing
from forge_jobs.storage.sqlite.audit import SqliteAudit
from forge_jobs.storage.sqlite.chores import SqliteChores
from forge_jobs.storage.sqlite.claims import SqliteClaims
from forge_jobs.storage.sqlite.completions import SqliteCompletions
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.corrections import SqliteCorrections
from forge_jobs.storage.sqlite.crons import SqliteCrons
from forge_jobs.storage.sqlite.ends import SqliteEnds
from forge_jobs.storage.sqlite.fires import SqliteFires
from forge_jobs.storage.sqlite.flow_ends import SqliteFlowEnds
from forge_jobs.storage.sqlite.flows import SqliteFlows
from forge_jobs.storage.sqlite.groups import SqliteGroups
from forge_jobs.storage.sqlite.history import SqliteHistory
from forge_jobs.storage.sqlite.imports import SqliteImports
from forge_jobs.storage.sqlite.interventions import SqliteInterventions
from forge_jobs.storage.sqlite.jobs import SqliteJobs
from forge_jobs.storage.sqlite.keys import SqliteKeys
from forge_jobs.storage.sqlite.kinds import SqliteKinds
from forge_jobs.storage.sqlite.leadership import SqliteLeadership
from forge_jobs.storage.sqlite.limits import SqliteLimits
from forge_jobs.storage.sqlite.micros import moment
from forge_jobs.storage.sqlite.operations import SqliteOperations
from forge_jobs.storage.sqlite.owners import SqliteOwners
from forge_jobs.storage.sqlite.permits import SqlitePermits
from forge_jobs.storage.sqlite.pins import SqlitePins
from forge_jobs.storage.sqlite.progress import SqliteProgress
from forge_jobs.storage.sqlite.queues import SqliteQueues
from forge_jobs.storage.sqlite.removals import SqliteRemovals
from forge_jobs.storage.sqlite.saved_states import SqliteSavedStates
from forge_jobs.storage.sqlite.schedule import SqliteSchedule
from forge_jobs.storage.sqlite.schema import SqliteSchema
from forge_jobs.storage.sqlite.signals import SqliteSignals
from forge_jobs.storage.sqlite.slots import SqliteSlots
from forge_jobs.storage.sqlite.statistics import SqliteStatistics
from forge_jobs.storage.sqlite.steps import SqliteSteps
from forge_jobs.storage.sqlite.sync_database import SharedSqliteDatabase, SyncSqliteDatabase
from forge_jobs.storage.sqlite.tenants import SqliteTenants
from forge_jobs.storage.sqlite.time_limits import SqliteTimeLimits
from forge_jobs.storage.sqlite.tokens import SqliteTokens
from forge_jobs.storage.sqlite.versions import SqliteVersions
from forge_jobs.storage.sqlite.wakeups import SqliteWakeups
from forge_jobs.storage.sqlite.workers import SqliteWorkers

SYNCHRONOUS = ("NORMAL", "FULL")


class SqliteStorage(Storage):
    """A SQLite file that holds jobs, for all processes of one host.

    `url` is sqlite:///relative/path, sqlite:////absolute/path, or sqlite://:memory:, a database
    that ends with this object. With synchronous="NORMAL" a power cut may undo the last commits
    (a crash of the process does not); "FULL" waits for the disk. `clock` tells the time
    for all statements, and `beat_clock`, if given, for those by which workers live and lead. The object belongs to the event loop that opens it.
    With `is_sync` no call suspends, and any thread may make it; with `shared` the same, in the database in memory that this one has open.
    """

    def __init__(
        self,
        url: str,
        *,
        synchronous: str = "NORMAL",
        clock: Callable[[], datetime] | None = None,
        beat_clock: Callable[[], datetime] | None = None,
        is_sync: bool = False,
        shared: "SqliteStorage | None" = None,
    ) -> None:
        if synchronous.upper() not in SYNCHRONOUS:
            raise InvalidInput(f"synchronous is {synchronous!r}, allowed is NORMAL or FULL.")
        path = url.removeprefix("sqlite://").removeprefix("/") or MEMORY
        database: SqliteDatabase
        if shared is not None:
            database = SharedSqliteDatabase(shared._database)
        else:
            database = (SyncSqliteDatabase if is_sync else SqliteDatabase)(
                path, synchronous=synchronous.upper(), clock=clock, beat_clock=beat_clock
            )
        self._database: SqliteDatabase = database
        self.url = f"sqlite://{MEMORY}" if database.in_memory else f"sqlite:///{database.path}"
        self.shared = False
        self.caveat = None
        self.schema = SqliteSchema(database)
        self.jobs = SqliteJobs(database)
        self.corrections = SqliteCorrections(database)
        self.interventions = SqliteInterventions(database)
        self.imports = SqliteImports(database)
        self.keys = SqliteKeys(database)
        self.claims = SqliteClaims(database)
        self.completions = SqliteCompletions(database)
        self.ends = SqliteEnds(database)
        self.saved_states = SqliteSavedStates(database)
        self.progress = SqliteProgress(database)
        self.steps = SqliteSteps(database)
        self.pins = SqlitePins(database)
        self.signals = SqliteSignals(database)
        self.schedule = SqliteSchedule(database)
        self.queues = SqliteQueues(database)
        self.slots = SqliteSlots(database)
        self.ageing = SqliteAgeing(database)
        self.groups = SqliteGroups(database)
        self.flows = SqliteFlows(database)
        self.flow_ends = SqliteFlowEnds(database)
        self.tenants = SqliteTenants(database)
        self.time_limits = SqliteTimeLimits(database)
        self.kinds = SqliteKinds(database)
        self.removals = SqliteRemovals(database)
        self.limits = SqliteLimits(database)
        self.tokens = SqliteTokens(database)
        self.permits = SqlitePermits(database)
        self.crons = SqliteCrons(database)
        self.fires = SqliteFires(database)
        self.operations = SqliteOperations(database)
        self.owners = SqliteOwners(database)
        self.workers = SqliteWorkers(database)
        self.versions = SqliteVersions(database)
        self.leadership = SqliteLeadership(database)
        self.chores = SqliteChores(database)
        self.history = SqliteHistory(database)
        self.audit = SqliteAudit(database)
        self.statistics = SqliteStatistics(database)
        self.wakeups = SqliteWakeups(database)

    async def open(self) -> None:
        """The file and its folder exist, and are open. Raises StorageUnavailable. Does not touch the schema."""
        await self._database.open()

    async def close(self) -> None:
        """Nothing is open any more; also right when `open` failed or was never called."""
        await self._database.close()

    async def ping(self) -> None:
        """The database answers. Raises StorageUnavailable."""
        await self._database.read(lambda transaction: transaction.value("SELECT count(*) FROM sqlite_master"))

    async def check_not_down(self) -> None:
        """Raise nothing: whoever may open the file can."""

    def met_down(self) -> None:
        """Return None: there is nothing to connect to."""

    async def now(self) -> datetime:
        """Return the database's time."""
        return moment(self._database.now())

    async def connections_left(self) -> int | None:
        """Return None: there are no connections to run out of."""
        return None
