"""What a database must do for forge-jobs: the contract of `storage`.

One protocol for each noun, one file for each in `postgres/` and `sqlite/`, the same
names in both. `worker/tests/storage/` is the definition: every test there runs on both.

Rules that hold for every method: it is one transaction (an iterator: each step is one); time is the database's `now()`;
a write about a running job presents `(job_id, worker_id, attempt)` and does nothing when
that is not the present claim; repeating a call does no harm. A database that cannot be
reached, or that goes away in the middle, raises `StorageUnavailable`, and no other driver
error leaves `storage`. Durations are timedelta and moments aware datetimes, both in UTC.
"""

from datetime import datetime
from typing import Protocol

from forge_jobs.storage.interface.ageing import Ageing
from forge_jobs.storage.interface.audit import Audit
from forge_jobs.storage.interface.chores import Chores
from forge_jobs.storage.interface.claims import Claims
from forge_jobs.storage.interface.completions import Completions
from forge_jobs.storage.interface.corrections import Corrections
from forge_jobs.storage.interface.crons import Crons
from forge_jobs.storage.interface.ends import Ends, FlowEnds
from forge_jobs.storage.interface.fires import Fires
from forge_jobs.storage.interface.flows import Flows
from forge_jobs.storage.interface.groups import Groups
from forge_jobs.storage.interface.history import History
from forge_jobs.storage.interface.imports import Imports
from forge_jobs.storage.interface.interventions import Interventions
from forge_jobs.storage.interface.jobs import Jobs
from forge_jobs.storage.interface.keys import Keys
from forge_jobs.storage.interface.kinds import Kinds
from forge_jobs.storage.interface.leadership import Leadership
from forge_jobs.storage.interface.limits import Limits
from forge_jobs.storage.interface.operations import Operations
from forge_jobs.storage.interface.owners import Owners
from forge_jobs.storage.interface.permits import Permits
from forge_jobs.storage.interface.pins import Pins
from forge_jobs.storage.interface.progress import ProgressReports
from forge_jobs.storage.interface.queues import Queues
from forge_jobs.storage.interface.removals import Removals
from forge_jobs.storage.interface.saved_states import SavedStates
from forge_jobs.storage.interface.schedule import Schedule
from forge_jobs.storage.interface.schema import Schema
from forge_jobs.storage.interface.signals import Signals
from forge_jobs.storage.interface.slots import Slots
from forge_jobs.storage.interface.statistics import RunStatistics
from forge_jobs.storage.interface.steps import Steps
from forge_jobs.storage.interface.tenants import Tenants
from forge_jobs.storage.interface.time_limits import JobTimeLimits
from forge_jobs.storage.interface.tokens import Tokens
from forge_jobs.storage.interface.versions import Versions
from forge_jobs.storage.interface.wakeups import Wakeups
from forge_jobs.storage.interface.workers import Workers


class Storage(Protocol):
    """A database that holds jobs: one attribute for each noun."""

    schema: Schema
    jobs: Jobs
    corrections: Corrections
    interventions: Interventions
    imports: Imports
    keys: Keys
    claims: Claims
    completions: Completions
    ends: Ends
    saved_states: SavedStates
    progress: ProgressReports
    steps: Steps
    pins: Pins
    signals: Signals
    schedule: Schedule
    queues: Queues
    slots: Slots
    ageing: Ageing
    groups: Groups
    flows: Flows
    flow_ends: FlowEnds
    tenants: Tenants
    time_limits: JobTimeLimits
    kinds: Kinds
    removals: Removals
    limits: Limits
    tokens: Tokens
    permits: Permits
    crons: Crons
    fires: Fires
    operations: Operations
    owners: Owners
    workers: Workers
    versions: Versions
    leadership: Leadership
    chores: Chores
    history: History
    audit: Audit
    statistics: RunStatistics
    wakeups: Wakeups
    url: str  # without its password
    shared: bool  # whether other hosts may use it at the same time
    caveat: str | None  # a sentence that users of this database should know, set once it is open

    async def open(self) -> None:
        """Connections are open. Raises StorageUnavailable. Does not touch the schema."""

    async def close(self) -> None:
        """Nothing is open any more; also right when `open` failed or was never called."""

    async def ping(self) -> None:
        """The database answers. Raises StorageUnavailable."""

    async def check_not_down(self) -> None:
        """Raise StorageDown when whoever has no connection to the database gets none, so that others cannot use it though we can."""

    def met_down(self) -> tuple[float, float] | None:
        """Return when (`uptime`) the first and the last try of this process to connect were begun that met a database which is down.

        Between them none got in. None: the last that came to its end got in, or none met it.
        """

    async def now(self) -> datetime:
        """Return the database's time."""

    async def connections_left(self) -> int | None:
        """Return how many more connections the server gives now to a role like ours; None where that cannot be said.

        It is the least that the server (its reserves not counted), the database and the role
        have left. SQLite has no connections to run out of, and behind a pooler that gives
        every transaction another connection the number would say nothing: None.
        """
