"""What people do with a database of jobs, one file a noun; the command line makes these calls, too.

A Forge has one object of each class that is offered here: `forge.jobs`, `forge.queues` and so on.
"""

from typing import TYPE_CHECKING

from forge_jobs.rooms import offering

if TYPE_CHECKING:
    from forge_jobs.client.crons import Crons
    from forge_jobs.client.flows import Flows
    from forge_jobs.client.groups import Groups
    from forge_jobs.client.interventions import Interventions
    from forge_jobs.client.jobs import Jobs
    from forge_jobs.client.kinds import Kinds
    from forge_jobs.client.limits import Limits
    from forge_jobs.client.operations import Operations
    from forge_jobs.client.owners import Owners
    from forge_jobs.client.queues import Queues
    from forge_jobs.client.statistics import Statistics
    from forge_jobs.client.tenants import Tenants
    from forge_jobs.client.versions import Versions
    from forge_jobs.client.workers import Workers
else:
    __getattr__ = offering(
        __name__,
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
        "versions",
        "workers",
    )

__all__ = [
    "Crons",
    "Flows",
    "Groups",
    "Interventions",
    "Jobs",
    "Kinds",
    "Limits",
    "Operations",
    "Owners",
    "Queues",
    "Statistics",
    "Tenants",
    "Versions",
    "Workers",
]
