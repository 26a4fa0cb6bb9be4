"""Judges a version that has a share of the slots, by its jobs and its containers.

It is compared with the current version in the same time, since it got its present share. All the numbers
that this needs are in the database, so an operator that has just started judges as the previous one did.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from forge_jobs.model import TrackRecord, Version, bucket_start
from forge_operator.plan.pool import Pool
from forge_operator.specs import AbortSpec, RolloutStrategy, WorkersSpec
from forge_operator.state.observed import Pod
from forge_operator.words import count

ABORT_RATIO = 2.0
"""A version is only aborted when it is this many times as bad as the previous one."""

SHORTEST_HANG = 60.0
"""Seconds that a job may always run before it counts as hanging: those of a lost worker are taken back sooner."""

LATE = 5.0
"""Seconds that a job may always run before it counts as late."""

SHORTEST_SLOWDOWN = 0.05
"""Seconds below which no job counts as slow: other work of the machine takes longer than such a handler."""

WARM_UP = timedelta(minutes=2)
"""How long a version may be slow before that is judged, unless its step ends sooner."""

SETTLE = timedelta(minutes=2)
"""How long a new version may wait for its last pods when some are ready: the cluster may have no room for all."""


LONGEST_SENTENCE = 500
"""Characters of a judgement's sentence: the database keeps it, and what containers say of themselves may be of any kind."""


class Word(StrEnum):
    """What to do with a version that has a share."""

    GOES_ON = "goes on"
    HOLDS = "holds"  # its step does not end yet
    GOES_BACK = "goes back"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What to do with a version that has a share, and why."""

    word: Word
    sentence: str = ""


GOES_ON = Judgement(Word.GOES_ON)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A version that has a share, the version that it is to replace, and what both have done since it got the share."""

    pool: Pool
    spec: WorkersSpec
    version: Version
    before: Version
    record: TrackRecord
    record_before: TrackRecord
    left: timedelta  # of its step; less than nothing when that is over
    replicas: int  # pods that it should have for its share
    is_last: bool  # no step follows

    @property
    def abort(self) -> AbortSpec:
        """When the rollout is aborted."""
        return self.spec.rollout.abort

    @property
    def name(self) -> str:
        """The name of the version in a sentence."""
        return f"version {self.version.version} ({self.version.id})"

    @property
    def subject(self) -> str:
        """The name of the version at the beginning of a sentence."""
        return f"Version {self.version.version} ({self.version.id})"

    @property
    def usual_time(self) -> float:
        """The 99th percentile of the duration of the previous version's jobs in seconds, recently or ever; 0: it has ended none."""
        known = (self.before.record.quantile(0.99), self.record_before.quantile(0.99))
        return max(quantile or 0.0 for quantile in known)

    @property
    def judged_by(self) -> TrackRecord:
        """The record of the previous version to compare with: the recent one, or its whole history when that is too short."""
        lately = self.record_before
        return lately if lately.ended >= self.abort.min_samples else self.before.record


def judge(
    pool: Pool, spec: WorkersSpec, version: Version, *, left: timedelta, replicas: int, is_last: bool
) -> Judgement:
    """Judge a version that has a share of the slots; `left` is what remains of its step."""
    before = pool.current
    if before is None:
        return GOES_ON  # there is nothing to compare it with, and nothing to go back to
    case = Case(
        pool=pool,
        spec=spec,
        version=version,
        before=before,
        record=since_its_share(version, version),
        record_before=since_its_share(version, before),
        left=left,
        replicas=replicas,
        is_last=is_last,
    )
    for grave in (crashing, failing, hanging, slow, unready):  # what explains the others comes first
        if sentence := grave(case):
            return goes_back(sentence, before)
    if left > timedelta(0):
        return GOES_ON
    sentence = next(doubts(case), None)
    if sentence is None:
        return GOES_ON
    patience = case.abort.inconclusive_hold
    if spec.rollout.strategy is RolloutStrategy.PROGRESSIVE and patience and -left > patience:
        return goes_back(f"{sentence}, after {patience.total_seconds():g} s of waiting", before)
    return Judgement(Word.HOLDS, f"{sentence}.")


def goes_back(sentence: str, before: Version) -> Judgement:
    """Return the judgement that the rollout is aborted, in a sentence that the database can keep."""
    plain = "".join(character if character.isprintable() else " " for character in sentence)
    end = f"; version {before.version} serves again."
    return Judgement(Word.GOES_BACK, plain[: LONGEST_SENTENCE - len(end)] + end)


def since_its_share(version: Version, other: Version) -> TrackRecord:
    """Return what `other` has done since `version` got its present share."""
    return other.record.since(version.baseline.get(other.id, TrackRecord()))


# --- what makes it go back ---


def failing(case: Case) -> str | None:
    """Return that its jobs fail, time out, hang or are lost too often."""
    record, before = case.record, case.judged_by
    hung = hung_jobs(case).own
    jobs = record.ended + hung
    if jobs < case.abort.min_samples:
        return None
    percent, usual = percentage(record.failures + hung, jobs), percentage(before.failures, before.ended)
    if percent <= case.abort.max_failure_percent or percent <= ABORT_RATIO * usual:
        return None
    kinds = (
        (record.failed - record.timed_out, "failed"),
        (record.timed_out, "timed out"),
        (record.lost, "lost with their worker"),
        (hung, "hanging"),
    )
    how = ", ".join(f"{number} {word}" for number, word in kinds if number)
    return (
        f"{percent:.0f} % of {count(jobs, 'job')} of {case.name} failed ({how}), "
        f"{usual:.0f} % of those of the previous version"
    )


def hanging(case: Case) -> str | None:
    """Return that most jobs that it runs should have ended long ago."""
    hung = hung_jobs(case)
    enough = min(case.abort.min_samples, slots(case) * case.abort.max_failure_percent / 100)
    if hung.own < max(1, enough) or not hung.are_too_many(case.abort):
        return None
    running = sum(case.version.running.values())
    return (
        f"{hung.own} of {count(running, 'running job')} of {case.name} hang: they have run for more than "
        f"{seconds(hung.patience)}, {case.abort.hang_factor} times the 99th percentile of the previous version"
    )


def crashing(case: Case) -> str | None:
    """Return that its containers are started again and again, or its workers fall silent."""
    crashes, usual = crashes_of(case, case.version), crashes_of(case, case.before)
    per_pod, per_pod_before = crashes / pods_of(case, case.version), usual / pods_of(case, case.before)
    if crashes <= case.abort.max_restarts or per_pod <= ABORT_RATIO * per_pod_before:
        return None
    restarts = restarts_of(case, case.version)
    if restarts <= case.abort.max_restarts:
        lost = count(case.record.workers_lost, "worker")
        return f"{lost} of {case.name} fell silent{as_kubernetes_says(case)}"
    killed = sum(pod.out_of_memory for pod in restarted_pods(case, case.version))
    how = "OOMKilled" if killed else "restarted"
    return f"Containers of {case.name} were {how} {count(restarts, 'time')}{as_kubernetes_says(case)}"


def slow(case: Case) -> str | None:
    """Return that its jobs take many times as long."""
    if case.left > timedelta(0) and case.pool.database.now - share_since(case) < WARM_UP:
        return None
    record, before = case.record, case.judged_by
    if sum(record.durations.values()) < case.abort.min_samples:
        return None
    median, usual = record.quantile(0.5), before.quantile(0.5)
    if median is None or usual is None or median < SHORTEST_SLOWDOWN:
        return None
    if median <= case.abort.max_slowdown_factor * usual:
        return None
    return (
        f"Half of the jobs of {case.name} take more than {seconds(median)}, "
        f"{median / usual:.0f} times as long as those of the previous version"
    )


def unready(case: Case) -> str | None:
    """Say so when none of the version's pods has been ready for long."""
    if available(case) or case.left > -case.spec.rollout.progress_deadline:
        return None
    return f"No pod of {case.name} is ready{as_kubernetes_says(case)}"


# --- what leaves it undecided when its step is over ---


def doubts(case: Case) -> Iterator[str]:
    """Yield the reasons why the version cannot be judged yet, the most telling first."""
    late = late_jobs(case, case.usual_time, LATE)
    if late.are_too_many(case.abort):
        yield (
            f"{count(late.own, 'running job')} of {case.name} {'has' if late.own == 1 else 'have'} taken more than "
            f"{seconds(late.patience)}: the step is held until they have ended"
        )
    restarted = next((pod for pod in restarted_pods(case, case.version) if not has_lasted(case, pod)), None)
    if restarted is not None:
        yield (
            f"A container of {case.name} was restarted{as_kubernetes_says(case)}: the step is held until it has run "
            "twice as long as before the restart"
        )
    ready = available(case)
    if ready < case.replicas and (not ready or case.left > -SETTLE):
        yield f"{case.subject} has {ready} of {count(case.replicas, 'pod')} ready{as_kubernetes_says(case)}"
    yield from too_few_jobs(case)


def too_few_jobs(case: Case) -> Iterator[str]:
    """Say so when too few of its jobs have ended. Where neither version had any, all steps but the last go on."""
    needed, ended = case.abort.min_samples, case.record.ended
    if ended >= needed:
        return
    if has_nothing_to_do(case.version, case.record) and has_nothing_to_do(case.before, case.record_before):
        if case.is_last:
            yield (
                f"{case.subject} has run no job to be judged by: it takes over when "
                f"{count(needed, 'job')} of it {'has' if needed == 1 else 'have'} ended, or when it is promoted by annotation"
            )
        return
    yield (
        f"{count(ended, 'job')} of {case.name} {'has' if ended == 1 else 'have'} ended since it got its share, "
        f"and {needed} are needed to judge it: the step is held"
    )


# --- what is counted ---


def has_nothing_to_do(version: Version, record: TrackRecord) -> bool:
    """Whether no job was started since the version got its share, and none runs."""
    return record == TrackRecord(workers_lost=record.workers_lost) and not version.in_progress


def percentage(part: int, whole: int) -> float:
    """Return `part` as a percentage of `whole`."""
    return 100 * part / whole if whole else 0.0


@dataclass(frozen=True, slots=True)
class LateJobs:
    """Running jobs that have taken longer than `patience`, in seconds."""

    patience: float
    own: int = 0
    share: float = 0.0  # of the version's running jobs, in percent
    usual: float = 0.0  # of those of the one before

    def are_too_many(self, abort: AbortSpec) -> bool:
        """Whether most jobs of the version are late, and those of the one before are not."""
        return (
            self.own > 0 and self.share > abort.max_failure_percent and self.share > ABORT_RATIO * self.usual
        )


def hung_jobs(case: Case) -> LateJobs:
    """Return the running jobs that count as hanging."""
    return late_jobs(case, case.abort.hang_factor * case.usual_time, SHORTEST_HANG)


def late_jobs(case: Case, patience: float, least: float) -> LateJobs:
    """Return the running jobs that have taken longer than that; none while the usual duration is not known."""
    if not patience:
        return LateJobs(least)
    patience = max(patience, least)
    own, before = late(case.version, patience), late(case.before, patience)
    return LateJobs(
        patience,
        own,
        percentage(own, sum(case.version.running.values())),
        percentage(before, sum(case.before.running.values())),
    )


def slots(case: Case) -> int:
    """Return how many jobs its workers run at once."""
    return sum(worker.concurrency for worker in case.pool.workers(case.version.id))


def late(version: Version, patience: float) -> int:
    """Return how many of the version's running jobs were claimed more than `patience` seconds ago."""
    return sum(number for age, number in version.running.items() if bucket_start(age) >= patience)


def crashes_of(case: Case, version: Version) -> int:
    """Return how often processes of the version died: as Kubernetes saw it, or as the database did, which sees it later."""
    return max(restarts_of(case, version), since_its_share(case.version, version).workers_lost)


def restarts_of(case: Case, version: Version) -> int:
    """Return how often containers of the version were started again, by its pods to which that happened lately."""
    return sum(pod.restarts for pod in restarted_pods(case, version))


def restarted_pods(case: Case, version: Version) -> list[Pod]:
    """Return the version's pods in which a container ended since the new one has any share."""
    since = ramping_since(case)
    pods = case.pool.pods(version.id, alive=False)
    return [pod for pod in pods if pod.restarted_at is not None and pod.restarted_at >= since]


def has_lasted(case: Case, pod: Pod) -> bool:
    """Whether the pod has run since its restart for longer than a step, and for more than twice as long as before it."""
    if pod.restarted_at is None or not pod.ready:
        return False
    return case.pool.now - pod.restarted_at > max(step_length(case), 2 * pod.lasted)


def ramping_since(case: Case) -> datetime:
    """Return since when it has any share, by the operator's clock, as Kubernetes' moments are."""
    since = case.version.ramping_since or share_since(case)
    return case.pool.now - (case.pool.database.now - since)


def share_since(case: Case) -> datetime:
    """Return since when it has its present share, by the database's clock."""
    return case.version.state_changed_at or case.pool.database.now


def step_length(case: Case) -> timedelta:
    """Return how long its step was to last."""
    return case.pool.database.now - share_since(case) + case.left


def pods_of(case: Case, version: Version) -> int:
    """Return how many pods the version has, at least one."""
    return max(1, len(case.pool.pods(version.id)))


def available(case: Case) -> int:
    """Return how many of its pods are ready for long enough."""
    deployment = case.pool.deployments.get(case.version.id)
    return 0 if deployment is None or deployment.deleting else deployment.available


def as_kubernetes_says(case: Case) -> str:
    """Return what Kubernetes says of its pods, as the end of a sentence."""
    complaints = case.pool.complaints([case.version])
    return f" ({'; '.join(complaints)})" if complaints else ""


def seconds(length: float) -> str:
    """Return a duration in words."""
    return f"{length:.0f} s" if length >= 10 else f"{length:.2g} s"
