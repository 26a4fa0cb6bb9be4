"""forge-jobs: a job queue for Python that keeps its jobs in PostgreSQL or SQLite."""

# First: it hears signals while the rest is imported.
from forge_jobs.system import stop_signals as stop_signals

# isort: split
from typing import TYPE_CHECKING

from forge_jobs.rooms import offering

if TYPE_CHECKING:
    from forge_jobs.client.acting import acting_as
    from forge_jobs.client.flows import StartedFlow
    from forge_jobs.client.operations import Bulk
    from forge_jobs.codecs.encoded import Encoded
    from forge_jobs.errors import (
        ClaimLost,
        FlowDead,
        FlowNotFound,
        ForgeError,
        InvalidCron,
        InvalidInput,
        InvalidPayload,
        InvalidSetting,
        InvalidToken,
        JobDead,
        JobNotFound,
        KeyBusy,
        Managed,
        MissingCodec,
        NotEnqueued,
        NotOpenHere,
        NotUnique,
        PastEpoch,
        QueueInUse,
        RateLimited,
        SchemaOutdated,
        SchemaTooNew,
        SignalRefused,
        StepsChanged,
        StorageBusy,
        StorageContended,
        StorageDown,
        StorageRefused,
        StorageUnavailable,
        StorageUnusable,
        UndeclaredKind,
        UnfitPayload,
        UnknownCron,
        UnknownGroup,
        UnknownHandler,
        UnknownOperation,
        UnknownOwner,
        UnknownQueue,
        UnknownScope,
        WaitTimeout,
        WrongFlowState,
        WrongState,
    )
    from forge_jobs.forge import Forge
    from forge_jobs.handlers import every
    from forge_jobs.handlers.batch import Batch, BatchJob
    from forge_jobs.handlers.context import Context
    from forge_jobs.handlers.cron import Cron
    from forge_jobs.handlers.flow import Flow, Node
    from forge_jobs.handlers.handler import Handler
    from forge_jobs.handlers.isolated import run_isolated
    from forge_jobs.handlers.key_limit import KeyLimit
    from forge_jobs.handlers.provided import PROVIDED, Provided
    from forge_jobs.handlers.steps import Step
    from forge_jobs.handlers.unique import Unique
    from forge_jobs.handlers.waits import Signal
    from forge_jobs.model.cron import CronConfig, Missed
    from forge_jobs.model.decision import CircularWait, Dead, NoSignal, Reschedule, Retry, Throttled
    from forge_jobs.model.flow import FlowNode, FlowState, FlowStatus, OnDead
    from forge_jobs.model.group import Group, GroupStatus, Overflow
    from forge_jobs.model.job import (
        Cancelled,
        Counts,
        Enqueued,
        Failure,
        Job,
        JobProgress,
        KeyMode,
        Reason,
        Removed,
        State,
        Unhandled,
    )
    from forge_jobs.model.kind import Kind
    from forge_jobs.model.permit import KeyUse, Permit
    from forge_jobs.model.queue import QueueConfig
    from forge_jobs.model.rate_limit import RateLimit
    from forge_jobs.model.signal import Callback, Signalled
    from forge_jobs.model.statistics import KindStatistics, Times
    from forge_jobs.model.step import JobStep, StepSort
    from forge_jobs.model.tenant import TenantStatus
    from forge_jobs.model.worker import WorkerInfo
    from forge_jobs.plugins.plugin import Draft, JobCall, Plugin
    from forge_jobs.rules.retries import Retries
    from forge_jobs.rules.why import Why
    from forge_jobs.settings.environment import Settings
    from forge_jobs.sync.sync_forge import SyncForge
    from forge_jobs.worker.worker import Worker
else:
    __getattr__ = offering(
        __name__,
        "errors",
        "forge",
        "handlers.batch",
        "handlers.context",
        "handlers.cron",
        "handlers.handler",
        "handlers.isolated",
        "handlers.key_limit",
        "handlers.provided",
        "handlers.steps",
        "handlers.unique",
        "handlers.waits",
        "codecs.encoded",
        "model.job",
        "model.group",
        "model.decision",
        "model.kind",
        "model.queue",
        "model.tenant",
        "handlers.every",
        "handlers.flow",
        "model.flow",
        "model.rate_limit",
        "model.permit",
        "model.cron",
        "client.acting",
        "model.signal",
        "model.statistics",
        "model.step",
        "model.worker",
        "settings.environment",
        "plugins.plugin",
        "rules.retries",
        "rules.why",
        "client.flows",
        "client.operations",
        "sync.sync_forge",
        "worker.worker",
    )

__all__ = [
    "PROVIDED",
    "Batch",
    "BatchJob",
    "Bulk",
    "Callback",
    "Cancelled",
    "CircularWait",
    "ClaimLost",
    "Context",
    "Counts",
    "Cron",
    "CronConfig",
    "Dead",
    "Draft",
    "Encoded",
    "Enqueued",
    "Failure",
    "Flow",
    "FlowDead",
    "FlowNode",
    "FlowNotFound",
    "FlowState",
    "FlowStatus",
    "Forge",
    "ForgeError",
    "Group",
    "GroupStatus",
    "Handler",
    "InvalidCron",
    "InvalidInput",
    "InvalidPayload",
    "InvalidSetting",
    "InvalidToken",
    "Job",
    "JobCall",
    "JobDead",
    "JobNotFound",
    "JobProgress",
    "JobStep",
    "KeyBusy",
    "KeyLimit",
    "KeyMode",
    "KeyUse",
    "Kind",
    "KindStatistics",
    "Managed",
    "Missed",
    "MissingCodec",
    "NoSignal",
    "Node",
    "NotEnqueued",
    "NotOpenHere",
    "NotUnique",
    "OnDead",
    "Overflow",
    "PastEpoch",
    "Permit",
    "Plugin",
    "Provided",
    "QueueConfig",
    "QueueInUse",
    "RateLimit",
    "RateLimited",
    "Reason",
    "Removed",
    "Reschedule",
    "Retries",
    "Retry",
    "SchemaOutdated",
    "SchemaTooNew",
    "Settings",
    "Signal",
    "SignalRefused",
    "Signalled",
    "StartedFlow",
    "State",
    "Step",
    "StepSort",
    "StepsChanged",
    "StorageBusy",
    "StorageContended",
    "StorageDown",
    "StorageRefused",
    "StorageUnavailable",
    "StorageUnusable",
    "SyncForge",
    "TenantStatus",
    "Throttled",
    "Times",
    "UndeclaredKind",
    "UnfitPayload",
    "Unhandled",
    "Unique",
    "UnknownCron",
    "UnknownGroup",
    "UnknownHandler",
    "UnknownOperation",
    "UnknownOwner",
    "UnknownQueue",
    "UnknownScope",
    "WaitTimeout",
    "Why",
    "Worker",
    "WorkerInfo",
    "WrongFlowState",
    "WrongState",
    "acting_as",
    "every",
    "run_isolated",
]
