"""A cluster and a database of values: actions are carried out on it, and its pods start, claim and finish jobs.

It has one clock, which only `step` moves, so a rollout of hours is played in milliseconds. What
must never happen is checked at the moment it would.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from forge_jobs import Counts, CronConfig, QueueConfig, RateLimit, Unhandled, WorkerInfo
from forge_jobs.model import PinnedJobs, TrackRecord, Version, VersionState, track_record
from forge_jobs.model.version import OPEN
from forge_operator import naming
from forge_operator.plan import actions as act
from forge_operator.plan.budget import processes
from forge_operator.plan.queue import plan
from forge_operator.specs import InvalidSpec, QueueSpec
from forge_operator.specs.section import read
from forge_operator.state.memory import Memory, Rejection
from forge_operator.state.observed import (
    Budget,
    Cluster,
    DatabaseState,
    Deployment,
    Observed,
    Pod,
    QueueObject,
    Unknown,
)
from forge_operator.state.settings import OperatorSettings

START = datetime(2026, 1, 1, tzinfo=UTC)
POOL = "6f0c1d9e-0000-4000-8000-000000000001"
BEAT = 5.0
STALE = 35.0  # seconds until a worker is lost
LEAKS = 40.0  # seconds until a container of a version that leaks is killed

Spec = dict[str, Any]


def template(**said: Any) -> Spec:
    return {"spec": {"containers": [{"name": "worker", "image": "shop:1"}]}} | said


def workers(version: str = "1", **said: Any) -> Spec:
    return {"version": version, "template": template(), "replicas": 2, "slots": 2} | said


def autoscaled(version: str = "1", *, scaling: Mapping[str, Any] | None = None, **said: Any) -> Spec:
    found = workers(version, **said)
    del found["replicas"]
    return found | {"autoscaling": {"maxReplicas": 20, **(scaling or {})}}


@dataclass
class Job:
    """One job in the world."""

    arrived: float
    seconds: float
    started: float | None = None
    attempts: int = 0  # that counted
    touched: set[str] = field(default_factory=set)  # versions that began it


@dataclass
class RunningPod:
    """A pod, the worker in it, and the jobs it runs."""

    name: str
    version_id: str
    created: float
    slots: int
    starts: float  # when it is ready; infinite for one that never is
    cost: int | None = None
    marks: dict[str, str] = field(default_factory=dict)
    deleting: float | None = None
    worker: int | None = None
    cordoned: bool = False
    acknowledged: bool = True
    observed_revision: int = 0
    beat: float = 0.0
    succeeded: int = 0
    failed: int = 0
    run_seconds: float = 0.0
    durations: dict[int, int] = field(default_factory=dict)
    running: list[Job] = field(default_factory=list)
    restarts: int = 0
    restarted: float | None = None
    lasted: float = 0.0  # seconds that its container ran until it was
    out_of_memory: bool = False
    begun: float = 0.0  # when its worker did

    def record(self) -> TrackRecord:
        return TrackRecord(succeeded=self.succeeded, failed=self.failed, durations=dict(self.durations))


@dataclass
class DeadWorker:
    """A worker whose process died: its claims stay until it is missed."""

    version_id: str
    missed: float
    running: list[Job]
    record: TrackRecord


class Violation(AssertionError):
    """Something happened that must never happen."""


class World:
    """Everything there is outside the operator."""

    def __init__(
        self, spec: Spec | None = None, *, settings: OperatorSettings | None = None, pod_start: float = 10.0
    ) -> None:
        self.time = 0.0
        self.pod_start = pod_start
        self.settings = settings or OperatorSettings()
        self.spec: Spec = spec if spec is not None else {"workers": workers()}
        self.parsed: QueueSpec | InvalidSpec
        self.parsed_of: str | None = None  # the spec that was read last; None: none yet
        self.generation = 1
        self.annotations: dict[str, str] = {}
        self.finalizers: tuple[str, ...] = ()
        self.deleting_since: datetime | None = None
        self.is_gone = False
        self.status: dict[str, Any] = {}
        self.memory = Memory()
        self.queues: dict[str, QueueConfig] = {}
        self.limits: dict[str, RateLimit] = {}
        self.tenant_weights: dict[str, dict[str, float]] = {}  # by queue
        self.crons: dict[str, CronConfig] = {}
        self.unhandled: dict[str, list[Unhandled]] = {}  # by queue
        self.pinned: list[PinnedJobs] = []
        self.upcoming: dict[str, tuple[int, datetime]] = {}
        self.versions: dict[str, Version] = {}
        self.deployments: dict[str, Deployment] = {}
        self.manifests: dict[str, Mapping[str, Any]] = {}
        self.pods: dict[str, RunningPod] = {}
        self.pending: list[Job] = []
        self.waits: list[float] = []
        self.done = 0
        self.handed_back = 0  # by pods that were stopped while their jobs ran
        self.broken: set[str] = set()  # version ids whose pods never get ready
        self.failing: set[str] = set()  # version ids whose jobs fail
        self.hanging: set[str] = set()  # ... never end
        self.crashing: set[str] = set()  # ... end their process after a second
        self.leaking: set[str] = set()  # version ids whose containers are killed after some time of work
        self.unwilling: set[str] = set()  # version ids whose workers take nothing
        self.slowness: dict[str, float] = {}  # version id: how many times as long its jobs take
        self.records: dict[str, dict[str, int]] = {}  # version id: what its workers that are gone did
        self.dead: list[DeadWorker] = []
        self.arrivals = 0.0  # jobs that come each second, by themselves
        self.length = 1.0  # seconds of each
        self.enqueued = 0
        self.enqueued_before: dict[str, int] = {}  # version id: jobs that came before it was begun
        self.touched: dict[str, int] = {}  # version id: jobs that it began
        self.budget: Budget | None = None
        self.budget_spec: Mapping[str, Any] = {}
        self.budget_of_others: str | None = None
        self.budgets_hidden: str | None = None
        self.complaint: str | None = None  # what Kubernetes says of every pod that is not ready
        self.refusal: str | None = None  # what the API server says to every manifest
        self.undoable: tuple[type[act.Action], ...] = ()  # what cannot be done, as when a webhook is down
        self.connections_left: int | None = None
        self.most_connections: int | None = None  # instead of that: what the database has in all
        self.starting_elsewhere = 0
        self.database_error: Unknown | None = None
        self.cluster_error: Unknown | None = None
        self.events: list[act.EmitEvent] = []
        self.actions: list[act.Action] = []
        self.numbers = iter(range(1, 1_000_000))
        self.chance = Random(1)  # which of the workers that wait is the first to claim
        self.scales = 0
        self.most_pods = 0

    # --- what the operator sees ---

    @property
    def now(self) -> datetime:
        return START + timedelta(seconds=self.time)

    def moment(self, at: float) -> datetime:
        return START + timedelta(seconds=at)

    def owner(self) -> QueueObject:
        text = repr(self.spec)  # a test may have changed it in place
        if text != self.parsed_of:
            self.parsed_of = text
            try:
                self.parsed = read(QueueSpec, self.spec, "spec")
            except InvalidSpec as error:
                self.parsed = error
        return QueueObject(
            namespace="shop",
            name="mail",
            uid=POOL,
            generation=self.generation,
            spec=self.parsed,
            annotations=self.annotations,
            finalizers=self.finalizers,
            deleting_since=self.deleting_since,
            status=self.status,
        )

    def observe(self) -> Observed:
        return Observed(
            queue=self.owner(),
            cluster=self.cluster_error or self.cluster(),
            database=self.database_error or self.database(),
            settings=self.settings,
            now=self.now,
            memory=self.memory,
            starting_elsewhere=self.starting_elsewhere,
        )

    def cluster(self) -> Cluster:
        return Cluster(
            deployments=tuple(self.seen(each) for each in self.deployments.values()),
            pods=tuple(self.seen_pod(each) for each in self.pods.values()),
            budget=self.budget,
            budget_of_others=self.budget_of_others,
            budgets_hidden=self.budgets_hidden,
        )

    def seen(self, deployment: Deployment) -> Deployment:
        mine = self.alive(deployment.version_id)
        ready = [pod for pod in mine if self.is_ready(pod)]
        available = [pod for pod in ready if self.time - pod.starts >= 5]
        return replace(deployment, ready=len(ready), available=len(available))

    def seen_pod(self, pod: RunningPod) -> Pod:
        is_broken = pod.starts == float("inf")
        return Pod(
            name=pod.name,
            uid=f"uid-{pod.name}",
            version_id=pod.version_id,
            ready=self.is_ready(pod),
            deleting=pod.deleting is not None,
            deletion_cost=pod.cost,
            marks=dict(pod.marks),
            created_at=self.moment(pod.created),
            pending_reason="ImagePullBackOff" if is_broken else None,
            complaint="ImagePullBackOff (no such image)"
            if is_broken
            else (None if self.is_ready(pod) else self.complaint),
            restarts=pod.restarts,
            restarted_at=None if pod.restarted is None else self.moment(pod.restarted),
            lasted=timedelta(seconds=pod.lasted),
            out_of_memory=int(pod.out_of_memory),
        )

    def database(self) -> DatabaseState:
        running = sum(1 for _ in self.in_progress())
        oldest = self.moment(self.pending[0].arrived) if self.pending else None
        counts = [
            Counts(queue="mail", pending=len(self.pending), in_progress=running, oldest_pending_at=oldest)
        ]
        counts += [Counts(queue=name) for name in self.queues if name != "mail"]
        return DatabaseState(
            now=self.now,
            queues=tuple(self.queues.values()),
            limits=tuple(self.limits.values()),
            tenant_weights=dict(self.tenant_weights),
            counts=tuple(counts),
            upcoming=self.upcoming,
            unhandled=self.unhandled,
            pinned=tuple(self.pinned),
            crons=tuple(self.crons.values()),
            versions=tuple(self.seen_version(each) for each in self.versions.values()),
            workers=tuple(self.worker(pod) for pod in self.pods.values() if pod.worker is not None),
            connections_left=self.connections_left
            if self.most_connections is None
            else max(0, self.most_connections - self.connections()),
        )

    def connections(self) -> int:
        """Connections that are open: those of the pods whose worker has started."""
        each_has = {each.version_id: each.processes for each in self.deployments.values()}
        started = [pod for pod in self.pods.values() if pod.worker is not None]
        workers = sum(each_has.get(pod.version_id, 1) for pod in started)
        return workers * self.settings.connections_per_worker

    def seen_version(self, version: Version) -> Version:
        mine = [pod for pod in self.of(version.id) if pod.worker is not None]
        dead = [each for each in self.dead if each.version_id == version.id]
        ages = [track_record.bucket(self.time - (job.started or 0.0)) for job in self.in_progress(version.id)]
        return replace(
            version,
            workers=len(mine) + len(dead),
            acknowledged=not dead and all(pod.observed_revision >= version.control_revision for pod in mine),
            in_progress=len(ages),
            running={age: ages.count(age) for age in set(ages)},
            record=self.record(version.id),
        )

    def in_progress(self, version_id: str | None = None) -> Iterator[Job]:
        """The jobs that workers (of one version) hold, dead ones included."""
        holders: list[RunningPod | DeadWorker] = [*self.pods.values(), *self.dead]
        for holder in holders:
            if version_id in (None, holder.version_id):
                yield from holder.running

    def record(self, version_id: str) -> TrackRecord:
        mine = [pod.record().written() for pod in self.of(version_id)]
        mine += [each.record.written() for each in self.dead if each.version_id == version_id]
        return track_record.read(track_record.summed([self.records.get(version_id, {}), *mine]))

    def keep(self, version_id: str, record: TrackRecord) -> None:
        """A worker is gone; its version keeps what it did."""
        self.records[version_id] = track_record.summed([self.records.get(version_id, {}), record.written()])

    def worker(self, pod: RunningPod) -> WorkerInfo:
        assert pod.worker is not None
        version = self.versions.get(pod.version_id)
        knows = version is None or pod.observed_revision >= version.control_revision
        return WorkerInfo(
            id=pod.worker,
            label=pod.name,
            host=pod.name,
            pid=1,
            version=version.version if version else "?",
            queues=("mail",),
            kinds=("send",),
            concurrency=pod.slots,
            pool=POOL,
            version_id=pod.version_id,
            pod=pod.name,
            in_progress=len(pod.running),
            busy_since=min((self.moment(job.started or 0.0) for job in pod.running), default=None),
            cordoned=pod.cordoned,
            acknowledged=knows and pod.acknowledged,
            succeeded=pod.succeeded,
            failed=pod.failed,
            run_seconds=pod.run_seconds,
        )

    # --- what the operator does ---

    def look(self) -> tuple[act.Action, ...]:
        """One reconcile: plan, carry out each strand up to what is refused, remember."""
        found = plan(self.observe())
        self.memory = found.memory
        for strand in found.strands:
            for action in strand.actions:
                if self.refusal and isinstance(action, act.TryDeployment | act.ApplyDeployment):
                    rejections = {action.template_hash: Rejection(self.refusal, self.now)}
                    self.memory = replace(found.memory, rejections={**found.memory.rejections, **rejections})
                    break
                if isinstance(action, self.undoable):
                    break
                self.apply(action)
        return found.actions

    def apply(self, action: act.Action) -> None:
        was_open = self.has_open_gate()
        self.actions.append(action)
        getattr(self, f"_{type(action).__name__}")(action)
        if was_open and not self.has_open_gate():
            raise Violation(f"the last open gate was closed by {action}")
        if any(each.is_open for each in self.versions.values()) and len(self.current()) > 1:
            raise Violation(f"two current versions after {action}")

    def current(self) -> list[Version]:
        return [each for each in self.versions.values() if each.state is VersionState.CURRENT]

    def has_open_gate(self) -> bool:
        adopted = any(each.version_id not in self.versions for each in self.deployments.values())
        return adopted or any(each.is_open for each in self.versions.values())

    def _SetQueue(self, action: act.SetQueue) -> None:
        row = self.queues.get(action.name, QueueConfig(action.name))
        assert row.managed_by in (None, action.managed_by)
        self.queues[action.name] = replace(row, managed_by=action.managed_by, **action.changes)

    def _ManageQueue(self, action: act.ManageQueue) -> None:
        row = self.queues[action.name]
        if row.managed_by in (None, action.previous):
            self.queues[action.name] = replace(row, managed_by=action.owner)

    def _EnsureQueues(self, action: act.EnsureQueues) -> None:
        for name in action.names:
            self.queues.setdefault(name, QueueConfig(name))

    def _DeleteQueue(self, action: act.DeleteQueue) -> None:
        if self.pending:
            raise Violation("a queue with jobs was deleted")
        del self.queues[action.name]

    def _SetLimit(self, action: act.SetLimit) -> None:
        self.limits[action.scope] = RateLimit(
            action.scope, action.capacity, action.refill, managed_by=action.managed_by
        )

    def _SetTenantWeights(self, action: act.SetTenantWeights) -> None:
        self.tenant_weights[action.queue] = dict(action.weights)

    def _DeleteLimit(self, action: act.DeleteLimit) -> None:
        del self.limits[action.scope]

    def _PutVersion(self, action: act.PutVersion) -> None:
        version = action.version
        known = self.versions.get(version.id)
        if known is not None:
            self.versions[version.id] = replace(
                known, version=version.version, deployment=version.deployment, spec_hash=version.spec_hash
            )
            return
        self.enqueued_before[version.id] = self.enqueued
        self.versions[version.id] = replace(
            version,
            created_at=self.now,
            state_changed_at=self.now,
            last_current_at=self.now if version.state is VersionState.CURRENT else None,
            drain_started_at=self.now if version.state is VersionState.DRAINING else None,
        )

    def _Promote(self, action: act.Promote) -> None:
        for each in list(self.versions.values()):
            if each.id != action.version_id and each.is_open:
                self.move(each, VersionState.DRAINING)
        self.move(self.versions[action.version_id], VersionState.CURRENT, 100)

    def _MoveVersion(self, action: act.MoveVersion) -> None:
        version = self.versions[action.version_id]
        if version.is_open and action.state not in OPEN:
            others = [each for each in self.versions.values() if each.is_open and each.id != version.id]
            if not others:
                raise Violation(f"{action} would close the last open gate")
        if action.state in (VersionState.DRAINED, VersionState.RETIRED) and self.held(version.id):
            raise Violation(f"{action} of a version that holds jobs")
        self.move(version, action.state, action.weight_percent, action.failure_message)

    def move(
        self,
        version: Version,
        state: VersionState,
        weight: int | None = None,
        failure_message: str | None = None,
    ) -> None:
        changes = version.state is not state
        weighs = version.weight_percent if weight is None else weight
        closing = {VersionState.DRAINED, VersionState.RETIRED, VersionState.FAILED}
        was_current = VersionState.CURRENT in (version.state, state)
        ramps = state is VersionState.RAMPING
        baseline = version.baseline
        if changes or weighs != version.weight_percent:
            baseline = {id_: self.record(id_) for id_ in self.versions}
        self.versions[version.id] = replace(
            version,
            state=state,
            ramping_since=(version.ramping_since or self.now) if ramps else None,
            baseline=baseline if ramps else {},
            failure_message=failure_message if changes else version.failure_message,
            weight_percent=weighs,
            control_revision=version.control_revision + changes,
            state_changed_at=self.now
            if changes or weighs != version.weight_percent
            else version.state_changed_at,
            last_current_at=self.now if changes and was_current else version.last_current_at,
            drain_started_at=version.drain_started_at
            if not changes or state in closing
            else (self.now if state is VersionState.DRAINING else None),
            drained_at=version.drained_at
            if not changes or state in closing - {VersionState.DRAINED}
            else (self.now if state is VersionState.DRAINED else None),
        )

    def _DeleteVersion(self, action: act.DeleteVersion) -> None:
        if self.versions[action.version_id].is_open or self.of(action.version_id):
            raise Violation(f"{action} of a version that may claim")
        del self.versions[action.version_id]

    def _CordonWorkers(self, action: act.CordonWorkers) -> None:
        for pod in self.pods.values():
            if pod.worker in action.worker_ids and pod.cordoned is not action.cordoned:
                pod.cordoned, pod.acknowledged = action.cordoned, False

    def _TryDeployment(self, action: act.TryDeployment) -> None:
        if any(each.deployment == action.name for each in self.versions.values()):
            raise Violation(f"{action.name} is only tried when its version has begun")

    def _ApplyDeployment(self, action: act.ApplyDeployment) -> None:
        metadata = action.manifest["metadata"]
        if len(action.name) > 46:
            raise Violation(f"the name {action.name} is too long")
        if "replicas" in action.manifest["spec"]:
            raise Violation("a manifest scales")
        known = self.deployments.get(action.name)
        self.manifests[action.name] = action.manifest
        if known is not None:
            self.deployments[action.name] = replace(known, annotations=metadata["annotations"])
            return
        self.deployments[action.name] = Deployment(
            name=action.name,
            uid=f"uid-{next(self.numbers)}",
            version_id=metadata["labels"][naming.VERSION_ID],
            annotations=metadata["annotations"],
            replicas=1,
            processes=processes(action.manifest["spec"]["template"]),
            annotated=frozenset(action.manifest["spec"]["template"]["metadata"].get("annotations", {})),
            created_at=self.now,
        )
        self.replicate()

    def _Scale(self, action: act.Scale) -> None:
        deployment = self.deployments[action.name]
        if action.was is not None and action.was != deployment.replicas:
            raise Violation(f"{action} was planned for {action.was}, there are {deployment.replicas}")
        may_stop = action.reason in ("DrainTimeout", "Aborted")
        if action.replicas == 0 and self.held(deployment.version_id) and not may_stop:
            raise Violation(f"{action} while jobs run")
        if self.database_error and action.replicas < deployment.replicas:
            raise Violation(f"{action} while nothing is known")
        self.deployments[action.name] = replace(deployment, replicas=action.replicas)
        self.scales += 1
        self.replicate()

    def _DeleteDeployment(self, action: act.DeleteDeployment) -> None:
        deployment = self.deployments[action.name]
        if self.held(deployment.version_id):
            raise Violation(f"{action} while jobs run")
        del self.deployments[action.name]
        for pod in self.alive(deployment.version_id):
            pod.deleting = self.time

    def _SetDeletionCost(self, action: act.SetDeletionCost) -> None:
        if self.settings.honours_deletion_cost and action.pod in self.pods:
            self.pods[action.pod].cost = action.cost

    def _MarkPod(self, action: act.MarkPod) -> None:
        if action.pod not in self.pods:
            return
        pod, change = self.pods[action.pod], {**action.labels, **action.annotations}
        if naming.DELETION_COST in change:
            cost = change.pop(naming.DELETION_COST)
            pod.cost = None if cost is None else int(cost)
        said = {**pod.marks, **change}
        pod.marks = {name: value for name, value in said.items() if value is not None}

    def _ApplyBudget(self, action: act.ApplyBudget) -> None:
        known, metadata = self.budget, action.manifest["metadata"]
        uid = known.uid if known else f"uid-{next(self.numbers)}"
        self.budget = Budget(name=action.name, uid=uid, asked=metadata["annotations"][naming.BUDGET_HASH])
        self.budget_spec = action.manifest["spec"]

    def _DeleteBudget(self, action: act.DeleteBudget) -> None:
        if self.budget is not None and self.budget.uid == action.uid:
            self.budget, self.budget_spec = None, {}

    def _DeletePod(self, action: act.DeletePod) -> None:
        pod = self.pods[action.pod]
        if pod.running:
            raise Violation(f"{action} while jobs run")
        pod.deleting = self.time
        self.replicate()

    def _AddFinalizer(self, action: act.AddFinalizer) -> None:
        self.finalizers = (*self.finalizers, naming.FINALIZER)

    def _RemoveFinalizer(self, action: act.RemoveFinalizer) -> None:
        self.finalizers = tuple(each for each in self.finalizers if each != naming.FINALIZER)
        self.is_gone = self.deleting_since is not None and not self.finalizers

    def _WriteStatus(self, action: act.WriteStatus) -> None:
        self.status = dict(action.status)

    def _EmitEvent(self, action: act.EmitEvent) -> None:
        self.events.append(action)

    # --- what happens by itself ---

    def of(self, version_id: str) -> list[RunningPod]:
        return [pod for pod in self.pods.values() if pod.version_id == version_id]

    def alive(self, version_id: str) -> list[RunningPod]:
        return [pod for pod in self.of(version_id) if pod.deleting is None]

    def is_open(self, deployment: Deployment) -> bool:
        return self.versions[deployment.version_id].is_open

    def held(self, version_id: str) -> int:
        return sum(1 for _ in self.in_progress(version_id))

    def is_ready(self, pod: RunningPod) -> bool:
        return self.time >= pod.starts and pod.deleting is None

    def replicate(self) -> None:
        """What the controllers of Deployments and ReplicaSets do: pods that are not ready go first, then the cheap."""
        for deployment in self.deployments.values():
            mine = self.alive(deployment.version_id)
            for _ in range(deployment.replicas - len(mine)):
                self.start_pod(deployment)
            mine.sort(key=lambda pod: (self.is_ready(pod), pod.cost or 0, -pod.created, pod.name))
            for pod in mine[: max(0, len(mine) - deployment.replicas)]:
                pod.deleting = self.time

    def start_pod(self, deployment: Deployment) -> None:
        name = f"{deployment.name}-{next(self.numbers)}"
        broken = deployment.version_id in self.broken
        manifest = self.manifests[deployment.name]
        variables = manifest["spec"]["template"]["spec"]["containers"][0]["env"]
        slots = next(int(each["value"]) for each in variables if each["name"] == "FORGE_CONCURRENCY")
        starts = float("inf") if broken else self.time + self.pod_start
        self.pods[name] = RunningPod(name, deployment.version_id, self.time, slots, starts)

    def enqueue(self, count: int, seconds: float = 1.0) -> None:
        self.pending += [Job(self.time, seconds) for _ in range(count)]
        self.enqueued += count

    def step(self, seconds: float = 1.0) -> None:
        """Time passes: pods start, workers beat, claim, finish, and pods that are deleted go."""
        self.time += seconds
        self.enqueue(int(self.time * self.arrivals) - int((self.time - seconds) * self.arrivals), self.length)
        self.replicate()
        self.miss()
        for pod in sorted(self.pods.values(), key=lambda pod: (len(pod.running), self.chance.random())):
            self.live(pod)
        self.most_pods = max(self.most_pods, sum(1 for pod in self.pods.values() if pod.deleting is None))

    def live(self, pod: RunningPod) -> None:
        if pod.worker is None and self.is_ready(pod):
            pod.worker, pod.begun = next(self.numbers), self.time
            pod.observed_revision = self.revision(pod)
        if pod.worker is None:
            if pod.deleting is not None:
                del self.pods[pod.name]
            return
        if self.dies(pod):
            self.die(pod)
            return
        self.finish(pod)
        if self.time - pod.beat >= BEAT:
            pod.beat = self.time
            if not self.database_error:
                pod.acknowledged, pod.observed_revision = True, self.revision(pod)
        if pod.deleting is not None:
            self.stop(pod)
        elif self.may_claim(pod):
            self.claim(pod)

    def revision(self, pod: RunningPod) -> int:
        version = self.versions.get(pod.version_id)
        return version.control_revision if version else 0

    def may_claim(self, pod: RunningPod) -> bool:
        version, row = self.versions.get(pod.version_id), self.queues.get("mail")
        is_paused = row is not None and row.paused
        is_kept_back = pod.cordoned or is_paused or pod.version_id in self.unwilling
        return (version is None or version.is_open) and not is_kept_back

    def finish(self, pod: RunningPod) -> None:
        for job in list(pod.running):
            assert job.started is not None
            length = job.seconds * self.slowness.get(pod.version_id, 1.0)
            if pod.version_id in self.hanging or self.time < job.started + length:
                continue
            pod.running.remove(job)
            pod.run_seconds += length
            pod.durations[track_record.bucket(length)] = pod.durations.get(track_record.bucket(length), 0) + 1
            if pod.version_id in self.failing:
                pod.failed += 1
            else:
                pod.succeeded += 1
            self.done += 1

    def dies(self, pod: RunningPod) -> bool:
        """Whether the worker's process ends now, by itself or by the kernel."""
        begun = [job for job in pod.running if self.time - (job.started or 0.0) >= 1]
        if pod.version_id in self.crashing and begun:
            return True
        return pod.version_id in self.leaking and bool(begun) and self.time - pod.begun >= LEAKS

    def die(self, pod: RunningPod) -> None:
        """The process is gone; its container is started again, each time after a longer pause."""
        assert pod.worker is not None
        self.dead.append(DeadWorker(pod.version_id, self.time + STALE, pod.running, pod.record()))
        pod.running, pod.durations, pod.succeeded, pod.failed = [], {}, 0, 0
        pod.worker, pod.restarts, pod.restarted = None, pod.restarts + 1, self.time
        pod.lasted = self.time - pod.begun
        pod.out_of_memory = pod.version_id in self.leaking
        pod.starts = self.time + self.pod_start + min(300.0, 10.0 * 2 ** (pod.restarts - 1))

    def miss(self) -> None:
        """What the reaper does: the jobs of lost workers wait again; where a version failed no attempt counts."""
        for each in [each for each in self.dead if each.missed <= self.time]:
            self.dead.remove(each)
            gone = track_record.summed(
                [each.record.written(), TrackRecord(lost=len(each.running), workers_lost=1).written()]
            )
            self.keep(each.version_id, track_record.read(gone))
            version = self.versions.get(each.version_id)
            failed = version is not None and version.state is VersionState.FAILED
            for job in each.running:
                self.pending.append(replace(job, started=None, attempts=job.attempts + (not failed)))

    def claim(self, pod: RunningPod) -> None:
        row = self.queues.get("mail")
        limit = row.concurrency if row is not None else None
        running = sum(len(each.running) for each in self.pods.values())
        room = pod.slots - len(pod.running)
        if limit is not None:
            room = min(room, max(0, limit - running))
        for job in self.pending[:room]:
            job.started = self.time
            if pod.version_id not in job.touched:
                job.touched.add(pod.version_id)
                self.touched[pod.version_id] = self.touched.get(pod.version_id, 0) + 1
            self.waits.append(self.time - job.arrived)
            pod.running.append(job)
        del self.pending[:room]

    def stop(self, pod: RunningPod) -> None:
        """What a worker does after SIGTERM: it finishes, and hands back what its grace is too short for."""
        assert pod.deleting is not None
        if pod.running and self.time - pod.deleting < 115:
            return
        for job in pod.running:
            self.handed_back += 1
            self.pending.insert(0, replace(job, started=None))
        self.keep(pod.version_id, replace(pod.record(), handed_back=len(pod.running)))
        del self.pods[pod.name]

    # --- playing ---

    def run(self, seconds: float, *, every: float = 5.0, step: float = 1.0) -> "World":
        """Time passes, and the operator looks every few seconds."""
        end, next_look = self.time + seconds, self.time
        while self.time < end:
            if self.time >= next_look:
                self.look()
                next_look = self.time + every
            self.step(step)
        self.look()
        return self

    def settle(self, most: int = 10) -> int:
        """The operator looks until it has nothing to do, without time passing; return how many looks had."""
        for looks in range(most):
            if not self.look():
                return looks
        raise Violation(f"still acting after {most} looks: {self.actions[-5:]}")

    def change(self, **spec: Any) -> None:
        """Somebody edits the object."""
        self.spec = {**self.spec, **spec}
        self.generation += 1

    def states(self) -> dict[str, str]:
        """Version text to state."""
        return {each.version: each.state.value for each in self.versions.values()}

    def version(self, text: str) -> Version:
        return next(each for each in self.versions.values() if each.version == text)

    def share_touched(self, text: str) -> float:
        """How many of a hundred of the jobs that came since the version of this text began were begun by it."""
        version = self.version(text)
        came = self.enqueued - self.enqueued_before[version.id]
        return 100 * self.touched.get(version.id, 0) / max(1, came)

    def deployment(self, text: str) -> Deployment:
        return self.deployments[self.version(text).deployment]

    def condition(self, kind: str) -> tuple[str, str]:
        found = next(each for each in self.status["conditions"] if each["type"] == kind)
        return found["status"], found["reason"]

    def message(self, kind: str) -> str:
        return str(next(each["message"] for each in self.status["conditions"] if each["type"] == kind))

    def said(self) -> list[str]:
        """Reasons of all events, in order."""
        return [each.reason for each in self.events]
