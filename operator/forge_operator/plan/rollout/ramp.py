"""Gives a version its share of the slots, step by step."""

from datetime import timedelta
from math import ceil

from forge_jobs.model import Version, VersionState
from forge_operator.conditions import ConditionReason
from forge_operator.plan.actions import EmitEvent, MoveVersion
from forge_operator.plan.pool import Pool
from forge_operator.plan.rollout.judgement import Judgement, Word, judge
from forge_operator.plan.rollout.progress import Progress
from forge_operator.plan.rollout.readiness import SETTLE, complaint, is_up, may_go_on, takes_over_at_once
from forge_operator.plan.rollout.takeover import await_promotion, promote
from forge_operator.plan.rollout.upkeep import keep_up
from forge_operator.plan.scaling.decide import split
from forge_operator.specs import RolloutStrategy, StepSpec, WorkersSpec


def advance_share(pool: Pool, spec: WorkersSpec, version: Version, wanted: int) -> Progress:
    """Return the next step of a version that has a share of the slots."""
    actions = keep_up(pool, version, ramping_replicas(pool, spec, version, wanted))
    if takes_over_at_once(pool, spec, version):
        return promote(pool, version, actions)
    judgement = judge_version(pool, spec, version, wanted)
    if judgement.word is Word.GOES_BACK:
        move = MoveVersion(pool.uid, version.id, VersionState.FAILED, failure_message=judgement.sentence)
        event = EmitEvent("Warning", "RolloutAborted", judgement.sentence)
        return Progress((*actions, move, event), ConditionReason.ROLLOUT_ABORTED, judgement.sentence)
    if spec.rollout.strategy is RolloutStrategy.MANUAL:
        return await_promotion(version, f"has {version.weight_percent} % of the slots", actions)
    left = pause_left(pool, spec, version)
    if left > timedelta(0):
        return Progress(
            tuple(actions),
            ConditionReason.RAMPING,
            f"Version {version.version} ({version.id}) has {version.weight_percent} % of the slots, "
            f"for {ceil(left.total_seconds() / 30) * 30} s more.",
        )
    if judgement.word is Word.HOLDS:
        return Progress(tuple(actions), ConditionReason.INCONCLUSIVE, judgement.sentence)
    following = steps_after(spec, version)
    if following:
        message = (
            f"Version {version.version} ({version.id}) gets {following[0].weight_percent} % of the slots."
        )
        move = MoveVersion(pool.uid, version.id, VersionState.RAMPING, following[0].weight_percent)
        return Progress(
            (*actions, move, EmitEvent("Normal", "Ramping", message)), ConditionReason.RAMPING, message
        )
    if is_up(pool, version, wanted) or left < -SETTLE:
        return promote(pool, version, actions)
    return Progress(
        tuple(actions),
        ConditionReason.RAMPING,
        f"Version {version.version} ({version.id}) starts the pods that it needs to serve alone"
        f"{complaint(pool, version)}.",
    )


def pause_left(pool: Pool, spec: WorkersSpec, version: Version) -> timedelta:
    """Return for how long the version still has its share; less than nothing when that is over."""
    since = version.state_changed_at or pool.database.now
    return step_of(spec, version).pause - (pool.database.now - since)


def steps_after(spec: WorkersSpec, version: Version) -> list[StepSpec]:
    """Return the steps that a version with a share has yet to take."""
    return [step for step in spec.rollout.steps if step.weight_percent > version.weight_percent]


def ramping_replicas(pool: Pool, spec: WorkersSpec, version: Version, wanted: int) -> int:
    """Return how many pods a version with a share of the slots gets: all of them before it takes over."""
    is_over = not steps_after(spec, version) and pause_left(pool, spec, version) <= timedelta(0)
    if is_over and spec.rollout.strategy is RolloutStrategy.PROGRESSIVE and may_go_on(pool):
        if judge_version(pool, spec, version, wanted).word is Word.GOES_ON:
            return max(1, wanted)
    return split(wanted, version.weight_percent)[0]


def judge_version(pool: Pool, spec: WorkersSpec, version: Version, wanted: int) -> Judgement:
    """Plan the next step of a version that has a share of the slots."""
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
    reached = [step for step in spec.rollout.steps if step.weight_percent <= version.weight_percent]
    return reached[-1] if reached else StepSpec(weight_percent=version.weight_percent, pause=timedelta(0))
