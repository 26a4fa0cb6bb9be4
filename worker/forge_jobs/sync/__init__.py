"""What a program without an event loop holds: `forge.sync`, whose calls are done when they return."""

from typing import TYPE_CHECKING

from forge_jobs.rooms import offering

if TYPE_CHECKING:
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
    from forge_jobs.sync.sync_forge import SyncForge
    from forge_jobs.sync.tenants import SyncTenants
    from forge_jobs.sync.workers import SyncWorkers
else:
    __getattr__ = offering(
        __name__,
        "sync_forge",
        "crons",
        "flows",
        "groups",
        "interventions",
        "jobs",
        "kinds",
        "limits",
        "operations",
        "owners",
        "queues",
        "statistics",
        "tenants",
        "workers",
    )

__all__ = [
    "SyncCrons",
    "SyncFlows",
    "SyncForge",
    "SyncGroups",
    "SyncInterventions",
    "SyncJobs",
    "SyncKinds",
    "SyncLimits",
    "SyncOperations",
    "SyncOwners",
    "SyncQueues",
    "SyncStatistics",
    "SyncTenants",
    "SyncWorkers",
]
