"""A pool: the workers of one ForgeQueue, with what cluster and database say of them joined by version."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from forge_jobs import WorkerInfo
from forge_jobs.model import PinnedJobs, Version, VersionState
from forge_operator import naming
from forge_operator.naming import VersionIdentity
from forge_operator.plan import budget
from forge_operator.specs import DrainSpec, RolloutSpec, SunsetSpec, WorkersSpec
from forge_operator.state.memory import Memory
from forge_operator.state.observed import Cluster, DatabaseState, Deployment, Pod, QueueObject
from forge_operator.state.settings import OperatorSettings

ACTIVE = frozenset({VersionState.PENDING, VersionState.RAMPING, VersionState.CURRENT, VersionState.DRAINING})
"""The states in which a version counts against maxActiveVersions."""

STUCK_AFTER = timedelta(seconds=60)
"""How long a pod may wait for a node or an image until that counts."""


@dataclass(frozen=True)
class Pool:
    """Everything that is known of a pool once both cluster and database have answered."""

    owner: QueueObject
    workers_spec: WorkersSpec | None  # None: it should have no workers any more
    target: VersionIdentity | None  # the requested version
    cluster: Cluster
    database: DatabaseState
    settings: OperatorSettings
    memory: Memory
    now: datetime  # the operator's clock
    starting_elsewhere: int = 0  # workers of other pools that have not connected yet

    @property
    def uid(self) -> str:
        """The name of the pool in the database."""
        return self.owner.uid

    @property
    def served(self) -> tuple[str, ...]:
        """The queues that its workers serve, its own first."""
        others = self.workers_spec.queues if self.workers_spec else ()
        return tuple(dict.fromkeys((naming.queue_name(self.owner.name, self.owner.spec), *others)))

    @property
    def is_only_observed(self) -> bool:
        """Whether it is scaled by load, and decisions are only to be shown: the current version keeps the pods it has."""
        is_scaled = self.workers_spec is not None and self.workers_spec.autoscaling is not None
        return is_scaled and self.owner.annotations.get(naming.AUTOSCALING) == "observe"

    @property
    def drain(self) -> DrainSpec:
        """How versions drain."""
        return self.workers_spec.drain if self.workers_spec else DrainSpec()

    @property
    def rollout(self) -> RolloutSpec:
        """How versions take over."""
        return self.workers_spec.rollout if self.workers_spec else RolloutSpec()

    @property
    def sunset(self) -> SunsetSpec:
        """When versions that are drained go."""
        return self.workers_spec.sunset if self.workers_spec else SunsetSpec()

    @cached_property
    def versions(self) -> dict[str, Version]:
        """The versions by id, oldest first."""
        return {version.id: version for version in self.database.versions if version.pool == self.uid}

    @cached_property
    def deployments(self) -> dict[str, Deployment]:
        """The Deployments by version id: by their names, which nobody can change, and where no row has that by their labels."""
        known = {version.deployment: version.id for version in self.versions.values()}
        labelled = {
            deployment.version_id: deployment
            for deployment in self.cluster.deployments
            if deployment.name not in known
        }
        return labelled | {
            known[deployment.name]: deployment
            for deployment in self.cluster.deployments
            if deployment.name in known
        }

    @property
    def asked(self) -> Version | None:
        """The row of the requested version; None before there is one."""
        return self.versions.get(self.target.id) if self.target else None

    @property
    def current(self) -> Version | None:
        """The version that serves."""
        return next(
            (version for version in self.versions.values() if version.state is VersionState.CURRENT), None
        )

    @property
    def ramping(self) -> Version | None:
        """The newest version that serves beside the current one."""
        ramping = [version for version in self.versions.values() if version.state is VersionState.RAMPING]
        return ramping[-1] if ramping else None

    @property
    def open_versions(self) -> list[Version]:
        """The versions whose workers may claim."""
        return [version for version in self.versions.values() if version.is_open]

    @property
    def active(self) -> list[Version]:
        """The versions that count against maxActiveVersions: not those that only sleep until a pinned job wakes."""
        return [
            version
            for version in self.versions.values()
            if version.state in ACTIVE and not self.is_asleep(version)
        ]

    def pinned(self, version: Version) -> int:
        """Return how many jobs have begun on the version, and go on there only."""
        return sum(jobs.jobs for jobs in self._pinned(version))

    def pinned_ready(self, version: Version) -> int:
        """Return how many of them wait for one of its workers now."""
        return sum(jobs.ready for jobs in self._pinned(version))

    def is_asleep(self, version: Version) -> bool:
        """Whether the version drains, has pinned jobs that need no worker now, and no pods."""
        deployment = self.deployments.get(version.id)
        return (
            version.state is VersionState.DRAINING
            and version.in_progress == 0
            and self.pinned(version) > self.pinned_ready(version) == 0
            and deployment is not None
            and deployment.replicas == 0
        )

    def _pinned(self, version: Version) -> list[PinnedJobs]:
        return [
            jobs for jobs in self.database.pinned if (jobs.pool, jobs.version_id) == (self.uid, version.id)
        ]

    def pods(self, version_id: str, *, alive: bool = True) -> list[Pod]:
        """Return the version's pods, those that are being deleted left out unless not `alive`, newest first."""
        pods = [
            pod for pod in self.cluster.pods if pod.version_id == version_id and not (alive and pod.deleting)
        ]
        return sorted(pods, key=lambda pod: (pod.created_at or self.now, pod.name), reverse=True)

    def workers(self, version_id: str) -> list[WorkerInfo]:
        """Return the version's registered workers."""
        return [worker for worker in self.database.workers if worker.version_id == version_id]

    def scaled(self, versions: Sequence[Version]) -> int:
        """Return how many pods the Deployments of these versions request, starting ones included."""
        return sum(found.replicas for version in versions if (found := self.deployments.get(version.id)))

    def ready(self, versions: Sequence[Version]) -> int:
        """Return how many ready pods these versions have."""
        return sum(found.ready for version in versions if (found := self.deployments.get(version.id)))

    @property
    def connections_per_pod(self) -> int:
        """How many connections each pod of the requested version may open; 0: they are not counted."""
        if self.workers_spec is None:
            return 0
        return self.settings.connections_per_worker * budget.processes(self.workers_spec.template)

    @cached_property
    def connections_set_aside(self) -> int:
        """Connections for workers that are starting, of all pools."""
        here = budget.starting(self.cluster, self.database.workers)
        return (here + self.starting_elsewhere) * self.settings.connections_per_worker

    @property
    def connections_left(self) -> int | None:
        """Connections that are left for further pods; None: not known, or not counted."""
        if self.database.connections_left is None or not self.connections_per_pod:
            return None
        return max(0, self.database.connections_left - self.connections_set_aside)

    @property
    def connections_in_words(self) -> str:
        """How many connections are left, as the end of a sentence."""
        aside = f" ({self.connections_set_aside} are set aside for pods that start)"
        return f"the database has {self.connections_left} left{aside if self.connections_set_aside else ''}."

    def complaints(self, versions: Sequence[Version]) -> list[str]:
        """Return why pods of these versions do not get ready, in Kubernetes' own words where there are any, each reason once."""
        complaints = {pod.complaint for version in versions for pod in self.pods(version.id) if pod.complaint}
        failures = [
            failure.message
            for version in versions
            if (deployment := self.deployments.get(version.id))
            and (failure := deployment.conditions.get("ReplicaFailure"))
            and failure.status == "True"
        ]
        leaving = [
            f"Deployment {deployment.name} is being deleted"
            for version in versions
            if (deployment := self.deployments.get(version.id)) and deployment.deleting
        ]
        return [*sorted(complaints), *failures, *leaving]

    @property
    def is_stuck(self) -> bool:
        """Whether a pod has waited for a minute and cannot be placed or started."""
        return any(
            pod.pending_reason is not None
            and not pod.ready
            and not pod.deleting
            and pod.created_at is not None
            and self.now - pod.created_at > STUCK_AFTER
            for pod in self.cluster.pods
        )
