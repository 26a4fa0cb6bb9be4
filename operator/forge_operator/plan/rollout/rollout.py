"""How a version takes over: Pending, perhaps Ramping, Current; and what becomes of those before it.

At no moment a pool that was served has no open gate: the old version's is closed by the
same transaction that opens the new one's.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import ceil

from forge_jobs.model.version import Version, VersionState
from forge_operator import naming
from forge_operator.conditions import Reason
from forge_operator.plan import deployment as manifests
from forge_operator.plan.actions import (
    Action,
    ApplyDeployment,
    EmitEvent,
    MoveVersion,
    Promote,
    PutVersion,
    Scale,
)
from forge_operator.plan.pool import Pool
from forge_operator.plan.rollout import drain
from forge_operator.plan.rollout.judgement import SETTLE, Judgement, Word, judge
from forge_operator.plan.scaling.decide import split
from forge_operator.specs import RolloutStrategy, StepSpec, WorkersSpec
from forge_operator.state.observed import Deployment
from forge_operator.words import count

RETRY_REJECTED = timedelta(seconds=60)
"""How long after the API server refused a manifest it is asked again."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What to do about versions, and what to say about it."""

    actions: tuple[Action, ...]
    reason: Reason  # one of Progressing's
    message: str


def plan_rollout(pool: Pool, wanted: int) -> Progress:
    """Return the next steps of all versions, when the work asks for `wanted` pods."""
    if pool.workers_spec is None or pool.target is None:
        return Progress(tuple(abolished(pool)), Reason.NO_WORKERS, "The object has no workers of its own.")
    found = asked_for(pool, pool.workers_spec, pool.target, wanted)
    others = [action for each in pool.versions.values() for action in superseded(pool, each, found)]
    mended = (*told(pool), *adopted(pool))
    return replace(found, actions=(*found.actions, *mended, *others, *drain.forgotten(pool)))


# --- the version that is asked for ---


def asked_for(pool: Pool, spec: WorkersSpec, target: naming.VersionIdentity, wanted: int) -> Progress:
    """Return the next step of the version that is asked for."""
    refused = problem(pool, target)
    if refused is not None:
        return refused
    version = pool.asked
    if version is None:
        return begun(pool, spec, target, wanted)
    match version.state:
        case VersionState.CURRENT:
            return serving(pool, spec, version, wanted)
        case VersionState.PENDING:
            return pending(pool, spec, version, wanted)
        case VersionState.RAMPING:
            return ramping(pool, spec, version, wanted)
        case VersionState.FAILED:
            return failed(pool, spec, version, wanted)
        case _:
            return revived(pool, spec, version, wanted)


def problem(pool: Pool, target: naming.VersionIdentity) -> Progress | None:
    """Return why the version cannot be rolled out; None when it can."""
    assert pool.workers_spec is not None
    template = pool.workers_spec.template
    invalid = manifests.misshapen(template) or naming.reserved_variable(template)
    if invalid is not None:
        return Progress((), Reason.INVALID_TEMPLATE, invalid)
    rejection = pool.memory.rejections.get(target.template_hash)
    if rejection is not None and pool.now - rejection.at < RETRY_REJECTED:
        return Progress((), Reason.INVALID_TEMPLATE, rejection.message)
    if is_taken(pool, target):
        return Progress(
            (),
            Reason.IDENTITY_COLLISION,
            f"Version id {target.id} is taken by something else; change spec.workers.version.",
        )
    return None


def is_taken(pool: Pool, target: naming.VersionIdentity) -> bool:
    """Whether a row or a Deployment has the version's id, and was made of something else."""
    row, deployment = pool.versions.get(target.id), pool.deployments.get(target.id)
    hashes = {
        row.spec_hash if row else "",
        deployment.annotations.get(naming.VERSION_HASH, "") if deployment else "",
    }
    return bool(hashes - {"", target.digest})


def begun(pool: Pool, spec: WorkersSpec, target: naming.VersionIdentity, wanted: int) -> Progress:
    """Return what brings up a version that there is not yet."""
    replaced = [each for each in pool.active if is_replaceable(each)]
    if len(pool.active) - len(replaced) >= spec.rollout.max_active_versions:
        return too_many(spec)
    replicas = pending_replicas(pool, spec, wanted)
    missing = missing_pods(pool, target.id, replicas)
    if not is_affordable(pool, missing, wanted):
        return unaffordable(pool, spec, missing)
    version = Version(
        pool=pool.uid,
        id=target.id,
        version=spec.version,
        deployment=naming.deployment_name(spec.name_prefix or pool.owner.name, spec.version, target.id),
        spec_hash=target.digest,
        state=VersionState.CURRENT if serves_unknown(pool, target) else VersionState.PENDING,
        queues=pool.served,
    )
    made = [] if target.id in pool.deployments else brought_up(pool, version, replicas)
    # The row before the pods: without it the gate would be open. But no row of what cannot be made.
    actions = [
        *(manifests.tried(each) for each in made if isinstance(each, ApplyDeployment)),
        PutVersion(version),
        *made,
        EmitEvent(
            "Normal", "Created", f"Version {spec.version} ({target.id}) starts with {count(replicas, 'pod')}."
        ),
    ]
    return Progress(tuple(actions), Reason.WAITING_FOR_PODS, f"Version {spec.version} ({target.id}) starts.")


def missing_pods(pool: Pool, version_id: str, replicas: int) -> int:
    """Return how many pods the version needs that were not ordered yet."""
    deployment = pool.deployments.get(version_id)
    return max(0, replicas - (deployment.replicas if deployment else 0))


def is_affordable(pool: Pool, pods: int, wanted: int) -> bool:
    """Whether the database has connections for so many pods beside those that the serving version may get now.

    A pool that nobody serves is not held up: some of its pods are better than none.
    """
    left = pool.connections_left
    if left is None or not may_go_on(pool):
        return True
    growth = max(0, wanted - pool.scaled(pool.open_versions))
    return pods == 0 or (pods + growth) * pool.connections_per_pod <= left


def unaffordable(pool: Pool, spec: WorkersSpec, pods: int) -> Progress:
    """Return that the version waits until the database has connections for it."""
    return Progress(
        (),
        Reason.DATABASE_CONNECTION_BUDGET,
        f"Version {spec.version} waits: {count(pods, 'more pod', ('opens', 'open'))} up to "
        f"{count(pods * pool.connections_per_pod, 'connection')}, {pool.connections_told}",
    )


def serves_unknown(pool: Pool, target: naming.VersionIdentity) -> bool:
    """Whether pods of the version serve already, with no row to say so, as after a database was restored."""
    deployment = pool.deployments.get(target.id)
    return pool.current is None and deployment is not None and deployment.available > 0


def is_replaceable(version: Version) -> bool:
    """Whether the version never got a job, and so may go at once for a newer one."""
    return (
        version.state is VersionState.PENDING
        and version.last_current_at is None
        and version.control_revision == 1
        and version.in_progress == 0
    )


def too_many(spec: WorkersSpec) -> Progress:
    """Return that the version has to wait for others to end."""
    return Progress(
        (),
        Reason.TOO_MANY_VERSIONS,
        f"{count(spec.rollout.max_active_versions, 'version', ('has', 'have'))} workers already; "
        f"version {spec.version} waits until one has drained.",
    )


def serving(pool: Pool, spec: WorkersSpec, version: Version, wanted: int) -> Progress:
    """Return what keeps the current version as it should be."""
    actions = tuple(kept_up(pool, version, wanted))
    overdue = [each for each in pool.versions.values() if drain.is_overdue(pool, each)]
    draining = [each for each in pool.versions.values() if each.state is VersionState.DRAINING]
    if overdue:
        return Progress(
            actions,
            Reason.DRAIN_OVERDUE,
            f"Version {overdue[0].version} ({overdue[0].id}) still runs {count(overdue[0].in_progress, 'job')}.",
        )
    if draining:
        held = sum(each.in_progress for each in draining)
        names = ", ".join(f"{each.version} ({each.id})" for each in draining)
        runs = f"{count(held, 'job')} of {names} still {'runs' if held == 1 else 'run'}"
        return Progress(actions, Reason.DRAINING, f"Version {version.version} serves; {runs}.")
    return Progress(
        actions, Reason.ROLLOUT_COMPLETE, f"Version {version.version} ({version.id}) serves alone."
    )


def pending(pool: Pool, spec: WorkersSpec, version: Version, wanted: int) -> Progress:
    """Return the next step of a version that is not open yet."""
    replicas = pending_replicas(pool, spec, wanted)
    actions = kept_up(pool, version, replicas)
    if is_ready(pool, spec, version, replicas):
        return ready(pool, spec, version, actions)
    if is_past(pool, version.state_changed_at, spec.rollout.progress_deadline):
        return given_up(pool, spec, version, actions)
    deployment = pool.deployments.get(version.id)
    available = deployment.available if deployment else 0
    return Progress(
        tuple(actions),
        Reason.WAITING_FOR_PODS,
        f"Version {version.version} ({version.id}) has {available} of {count(replicas, 'pod')} ready{complaint(pool, version)}.",
    )


def complaint(pool: Pool, version: Version) -> str:
    """Return what keeps its pods from getting ready, as the end of a sentence."""
    reasons = pool.complaints([version])
    return f": {'; '.join(reasons)}" if reasons else ""


def given_up(pool: Pool, spec: WorkersSpec, version: Version, actions: list[Action]) -> Progress:
    """Return what is done with a version that did not get ready in time."""
    message = deadline_message(pool, spec, version)
    if not pool.open_versions:
        # Nobody else serves: giving up would help nobody.
        return Progress(tuple(actions), Reason.PROGRESS_DEADLINE_EXCEEDED, message)
    move = MoveVersion(pool.uid, version.id, VersionState.FAILED, 100)
    return Progress((*actions, move), Reason.PROGRESS_DEADLINE_EXCEEDED, message)


def deadline_message(pool: Pool, spec: WorkersSpec, version: Version) -> str:
    """Return the sentence for a version that did not get ready in time."""
    return (
        f"Version {version.version} ({version.id}) was not ready within "
        f"{spec.rollout.progress_deadline.total_seconds():g} s{complaint(pool, version)}."
    )


def ready(pool: Pool, spec: WorkersSpec, version: Version, actions: list[Action]) -> Progress:
    """Return what is done with a version whose workers are ready: it takes over, or begins to, or waits for people."""
    if takes_over_at_once(pool, spec, version):
        return promoted(pool, version, actions)
    if spec.rollout.strategy is RolloutStrategy.MANUAL:
        return awaiting(version, "is ready", actions)
    step = spec.rollout.steps[0]
    message = f"Version {version.version} ({version.id}) gets {step.weight_percent} % of the slots."
    move = MoveVersion(pool.uid, version.id, VersionState.RAMPING, step.weight_percent)
    return Progress((*actions, move, EmitEvent("Normal", "Ramping", message)), Reason.RAMPING, message)


def awaiting(version: Version, how: str, actions: list[Action]) -> Progress:
    """Return that the version waits for people, being as it is."""
    return Progress(
        tuple(actions),
        Reason.AWAITING_PROMOTION,
        f"Version {version.version} {how}: set annotation {naming.PROMOTE}={version.id} to promote it.",
    )


def takes_over_at_once(pool: Pool, spec: WorkersSpec, version: Version) -> bool:
    """Whether a ready version needs no steps and nobody's word: by its strategy, as the first, or on the way back."""
    return (
        spec.rollout.strategy is RolloutStrategy.ALL_AT_ONCE
        or not may_go_on(pool)
        or is_asked_by_hand(pool, version)
        or served_lately(pool, spec, version)
    )


def may_go_on(pool: Pool) -> bool:
    """Whether the current version can serve meanwhile: without Deployment and pods it cannot, nor can be made again."""
    current = pool.current
    return current is not None and (current.id in pool.deployments or bool(pool.pods(current.id)))


def is_asked_by_hand(pool: Pool, version: Version) -> bool:
    """Whether somebody wrote the annotation that promotes this version."""
    return pool.owner.annotations.get(naming.PROMOTE) == version.id


def served_lately(pool: Pool, spec: WorkersSpec, version: Version) -> bool:
    """Whether the version was current within the rollback window."""
    since = version.last_current_at
    return since is not None and pool.database.now - since <= spec.rollout.rollback_window


def promoted(pool: Pool, version: Version, actions: list[Action]) -> Progress:
    """Return what makes the version current and closes all others, in one transaction."""
    before = pool.current
    back = version.last_current_at is not None and before is not None
    message = f"Version {version.version} ({version.id}) serves now" + (
        f" instead of {before.version} ({before.id})." if before else "."
    )
    events: list[Action] = [EmitEvent("Normal", "RolledBack" if back else "Promoted", message)]
    missing = missing_kinds(pool, before, version)
    if missing:
        events.append(
            EmitEvent(
                "Warning", "KindsMissing", f"Version {version.version} does not handle {', '.join(missing)}."
            )
        )
    return Progress((*actions, Promote(pool.uid, version.id), *events), Reason.PROMOTING, message)


def missing_kinds(pool: Pool, before: Version | None, after: Version) -> list[str]:
    """Return the kinds that workers of `before` handle and those of `after` do not."""
    if before is None:
        return []
    old = {kind for each in pool.workers(before.id) for kind in each.kinds}
    new = {kind for each in pool.workers(after.id) for kind in each.kinds}
    return sorted(old - new)


def ramping(pool: Pool, spec: WorkersSpec, version: Version, wanted: int) -> Progress:
    """Return the next step of a version that has a share of the slots."""
    actions = kept_up(pool, version, ramping_replicas(pool, spec, version, wanted))
    if takes_over_at_once(pool, spec, version):
        return promoted(pool, version, actions)
    judgement = judged(pool, spec, version, wanted)
    if judgement.word is Word.GOES_BACK:
        move = MoveVersion(pool.uid, version.id, VersionState.FAILED, verdict=judgement.sentence)
        event = EmitEvent("Warning", "RolloutAborted", judgement.sentence)
        return Progress((*actions, move, event), Reason.ROLLOUT_ABORTED, judgement.sentence)
    if spec.rollout.strategy is RolloutStrategy.MANUAL:
        return awaiting(version, f"has {version.weight_percent} % of the slots", actions)
    left = pause_left(pool, spec, version)
    if left > timedelta(0):
        return Progress(
            tuple(actions),
            Reason.RAMPING,
            f"Version {version.version} ({version.id}) has {version.weight_percent} % of the slots, "
            f"for {ceil(left.total_seconds() / 30) * 30} s more.",
        )
    if judgement.word is Word.HOLDS:
        return Progress(tuple(actions), Reason.INCONCLUSIVE, judgement.sentence)
    following = steps_after(spec, version)
    if following:
        message = (
            f"Version {version.version} ({version.id}) gets {following[0].weight_percent} % of the slots."
        )
        move = MoveVersion(pool.uid, version.id, VersionState.RAMPING, following[0].weight_percent)
        return Progress((*actions, move, EmitEvent("Normal", "Ramping", message)), Reason.RAMPING, message)
    if is_up(pool, version, wanted) or left < -SETTLE:
        return promoted(pool, version, actions)
    return Progress(
        tuple(actions),
        Reason.RAMPING,
        f"Version {version.version} ({version.id}) starts the pods that it needs to serve alone"
        f"{complaint(pool, version)}.",
    )


def pause_left(pool: Pool, spec: WorkersSpec, version: Version) -> timedelta:
    """Return for how long the version still has its share; less than nothing when that is over."""
    since = version.state_changed_at or pool.database.now
    return step_of(spec, version).pause - (pool.database.now - since)


def steps_after(spec: WorkersSpec, version: Version) -> list[StepSpec]:
    """Return the steps that a version with a share has before it."""
    return [each for each in spec.rollout.steps if each.weight_percent > version.weight_percent]


def ramping_replicas(pool: Pool, spec: WorkersSpec, version: Version, wanted: int) -> int:
    """Return how many pods a version with a share of the slots gets: all of them before it takes over."""
    is_over = not steps_after(spec, version) and pause_left(pool, spec, version) <= timedelta(0)
    if is_over and spec.rollout.strategy is RolloutStrategy.PROGRESSIVE and may_go_on(pool):
        if judged(pool, spec, version, wanted).word is Word.GOES_ON:
            return max(1, wanted)
    return split(wanted, version.weight_percent)[0]


def judged(pool: Pool, spec: WorkersSpec, version: Version, wanted: int) -> Judgement:
    """Return what is to become of a version that has a share of the slots."""
    return judge(
        pool,
        spec,
        version,
        left=pause_left(pool, spec, version),
        replicas=split(wanted, version.weight_percent)[0],
        is_last=not steps_after(spec, version),
    )


def step_of(spec: WorkersSpec, version: Version) -> StepSpec:
    """Return the step that the version's share belongs to, also when the steps were changed since."""
    reached = [each for each in spec.rollout.steps if each.weight_percent <= version.weight_percent]
    return reached[-1] if reached else StepSpec(weight_percent=version.weight_percent, pause=timedelta(0))


def failed(pool: Pool, spec: WorkersSpec, version: Version, wanted: int) -> Progress:
    """Return what is done with a version that was given up and is still asked for.

    One that was aborted stays so until somebody promotes it by hand. One that was only late
    keeps a pod, and gets another chance when that is ready.
    """
    aborted = version.weight_percent < 100
    message = deadline_message(pool, spec, version)
    reason = Reason.PROGRESS_DEADLINE_EXCEEDED
    if aborted:
        message = version.verdict or f"Version {version.version} ({version.id}) was given up."
        reason = Reason.ROLLOUT_ABORTED
    again = is_asked_by_hand(pool, version) if aborted else is_up(pool, version, 1)
    missing = missing_pods(pool, version.id, pending_replicas(pool, spec, wanted))
    if again and len(pool.active) < spec.rollout.max_active_versions and is_affordable(pool, missing, wanted):
        return Progress(
            (MoveVersion(pool.uid, version.id, VersionState.PENDING, 100),), Reason.WAITING_FOR_PODS, message
        )
    if aborted:
        return Progress(tuple(drain.emptied(pool, version)), reason, message)
    return Progress(tuple(kept_up(pool, version, 1)), reason, message)


def revived(pool: Pool, spec: WorkersSpec, version: Version, wanted: int) -> Progress:
    """Return what brings back a version that drains, is drained or retired: the way back."""
    others = [each for each in pool.active if each.id != version.id and not is_replaceable(each)]
    if len(others) >= spec.rollout.max_active_versions:
        return too_many(spec)
    if is_up(pool, version, 1) and takes_over_at_once(pool, spec, version):
        return promoted(pool, version, [])
    missing = missing_pods(pool, version.id, pending_replicas(pool, spec, wanted))
    if not is_affordable(pool, missing, wanted):
        return unaffordable(pool, spec, missing)
    move = MoveVersion(pool.uid, version.id, VersionState.PENDING, 100)
    message = f"Version {version.version} ({version.id}) comes back."
    return Progress((move, EmitEvent("Normal", "Created", message)), Reason.WAITING_FOR_PODS, message)


# --- its Deployment ---


def pending_replicas(pool: Pool, spec: WorkersSpec, wanted: int) -> int:
    """Return how many pods a version needs to be ready to take over; at least one, to prove itself."""
    asked = pool.asked
    at_once = not may_go_on(pool) or (asked is not None and served_lately(pool, spec, asked))
    if spec.rollout.strategy is RolloutStrategy.PROGRESSIVE and not at_once:
        return split(wanted, spec.rollout.steps[0].weight_percent)[0]
    return max(1, wanted)


def is_ready(pool: Pool, spec: WorkersSpec, version: Version, replicas: int) -> bool:
    """Whether the version may take over: all its pods are there, or enough when time presses."""
    patience = min(SETTLE, spec.rollout.progress_deadline / 2)
    nobody_serves = pool.current is None or pool.ready([pool.current]) == 0
    if (
        nobody_serves
        or served_lately(pool, spec, version)
        or is_past(pool, version.state_changed_at, patience)
    ):
        replicas = 1
    return is_up(pool, version, replicas)


def is_up(pool: Pool, version: Version, replicas: int) -> bool:
    """Whether so many of its pods are available, and a worker of it is registered."""
    deployment = pool.deployments.get(version.id)
    if deployment is None or deployment.deleting:
        return False
    return deployment.available >= replicas and version.workers > 0


def is_past(pool: Pool, since: datetime | None, patience: timedelta) -> bool:
    """Whether more than `patience` has passed since then."""
    return since is not None and pool.database.now - since > patience


def kept_up(pool: Pool, version: Version, replicas: int) -> list[Action]:
    """Return what makes the version's Deployment again if it is missing, and rolls it where it must differ."""
    deployment = pool.deployments.get(version.id)
    if deployment is None:
        again = version.control_revision > 1 or is_past(pool, version.created_at, SETTLE)
        event = EmitEvent(
            "Warning", "Recreated", f"Deployment {version.deployment} was missing and is made again."
        )
        return [*brought_up(pool, version, replicas), *([event] if again else [])]
    if deployment.deleting:
        return []
    if differs(pool, deployment):
        return [manifests.applied(pool, version)]
    return [manifests.applied(pool, version, deployment.edit)] if deployment.edit else []


def differs(pool: Pool, deployment: Deployment) -> bool:
    """Whether the Deployment is to be applied: without its label, for another template of the same version, or another database."""
    assert pool.target is not None
    if deployment.version_id != pool.target.id:
        return True
    if deployment.annotations.get(naming.TEMPLATE_HASH) != pool.target.template_hash:
        return True
    connection = pool.settings.connection_hash
    return connection is not None and deployment.annotations.get(naming.CONNECTION_HASH) != connection


def brought_up(pool: Pool, version: Version, replicas: int) -> list[ApplyDeployment | Scale]:
    """Return what makes the version's Deployment."""
    apply = manifests.applied(pool, version)
    if replicas <= 1:
        return [apply]  # one is what the API server makes of it; with none, that goes like any other
    # One that is there after all, though nothing found it, keeps its pods: the next look finds it.
    return [apply, Scale(pool.owner.namespace, version.deployment, replicas, "Created", 1)]


# --- the others ---


def superseded(pool: Pool, version: Version, asked: Progress) -> list[Action]:
    """Return the next step of a version that is not asked for any more."""
    assert pool.target is not None
    if version.id == pool.target.id:
        return []
    match version.state:
        case VersionState.PENDING:
            return withdrawn(pool, version, asked)
        case VersionState.RAMPING:
            return [moved(pool, version, VersionState.DRAINING)] if pool.current else []
        case VersionState.FAILED:
            return drain.dropped(pool, version)
        case VersionState.DRAINING:
            return drain.drained(pool, version)
        case VersionState.DRAINED:
            return drain.sunset(pool, version)
        case VersionState.RETIRED:
            return drain.deleted(pool, version)
        case VersionState.CURRENT:
            return []  # it serves until the one that is asked for does


def withdrawn(pool: Pool, version: Version, asked: Progress) -> list[Action]:
    """Return how a version that never became current gives way to a newer one: at once, if it never got a job."""
    is_begun = pool.asked is not None or any(isinstance(each, PutVersion) for each in asked.actions)
    # What the newer one waits for may be just what this one holds.
    if not is_begun and asked.reason is not Reason.DATABASE_CONNECTION_BUDGET:
        return []
    if not is_replaceable(version):
        return [moved(pool, version, VersionState.DRAINING)]
    return [moved(pool, version, VersionState.RETIRED), *drain.deleted(pool, version)]


def moved(pool: Pool, version: Version, state: VersionState) -> MoveVersion:
    """Return the action that moves the version."""
    return MoveVersion(pool.uid, version.id, state)


def told(pool: Pool) -> list[Action]:
    """Return what says which queues the version serves, where the release before wrote its row."""
    asked = pool.asked
    if asked is None or asked.queues is not None:
        return []
    return [PutVersion(replace(asked, queues=pool.served))]


def adopted(pool: Pool) -> list[Action]:
    """Return rows for Deployments of the pool that have none, as after a database was restored.

    Their gates stand open until then. They drain, unless they are what is asked for: that
    gets its row like any new version. Nothing is closed while nobody else serves.
    """
    assert pool.target is not None
    if pool.current is None:
        return []
    known = {each.deployment for each in pool.versions.values()}
    return [
        PutVersion(
            Version(
                pool=pool.uid,
                id=each.version_id,
                version=each.annotations.get(naming.VERSION, each.version_id),
                deployment=each.name,
                spec_hash=each.annotations.get(naming.VERSION_HASH, ""),
                state=VersionState.DRAINING,
            )
        )
        for each in pool.cluster.deployments
        if naming.is_version_id(each.version_id)
        and each.name not in known
        and each.version_id not in pool.versions
        and each.version_id != pool.target.id
        and not each.deleting
    ]


def abolished(pool: Pool) -> list[Action]:
    """Return the next steps of all versions of a pool that should have no workers any more.

    The last open gate stays open in the database, where it does no harm without workers;
    the pods go as in any scaling down, then the Deployment.
    """
    actions: list[Action] = []
    for version in pool.versions.values():
        deployment = pool.deployments.get(version.id)
        match version.state:
            case VersionState.RAMPING if pool.current:
                actions.append(moved(pool, version, VersionState.DRAINING))
            case VersionState.PENDING:
                actions.append(moved(pool, version, VersionState.DRAINING))
            case VersionState.FAILED:
                actions += drain.dropped(pool, version)
            case VersionState.DRAINING:
                actions += drain.drained(pool, version)
            case VersionState.DRAINED:
                actions += drain.sunset(pool, version)
            case VersionState.RETIRED:
                actions += drain.deleted(pool, version)
            case _ if deployment and deployment.replicas == 0 and not pool.pods(version.id, alive=False):
                actions += drain.deleted(pool, version)
    return [*actions, *drain.forgotten(pool)]
