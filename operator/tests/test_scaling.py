"""How many pods there should be."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forge_jobs import Counts, CronConfig, QueueConfig, Unhandled, WorkerInfo
from forge_operator.conditions import ConditionReason
from forge_operator.plan.scaling.decide import ScalingDecision, ScalingReason, decide, split, wish
from forge_operator.plan.scaling.load import Load, followed, measure
from forge_operator.specs import AutoscalingSpec
from forge_operator.specs.section import read
from forge_operator.state.memory import Memory, ScalerMemory, Tally
from forge_operator.state.observed import DatabaseState
from tests.world import START, World, autoscaled

SLOTS = 10


def scaling(**said: Any) -> AutoscalingSpec:
    return read(AutoscalingSpec, {"maxReplicas": 20} | said, "spec.workers.autoscaling")


def loaded(**said: Any) -> Load:
    return Load(**({"at": 0.0} | said))


def decided(load: Load, current: int, memory: ScalerMemory | None = None, **said: Any) -> ScalingDecision:
    memory = memory or ScalerMemory(replicas=current)
    return decide(scaling(**said), SLOTS, load, memory, current=current, now=load.at)[0]


# --- the formula ---


def test_nothing_to_do_needs_no_pod() -> None:
    assert wish(scaling(), SLOTS, loaded()) == (0, ScalingReason.IDLE)


def test_one_job_needs_one_pod() -> None:
    assert wish(scaling(), SLOTS, loaded(backlog=1))[0] == 1


def test_pods_follow_from_arrivals_and_the_time_of_a_job_with_headroom() -> None:
    # 10 jobs a second of 6 s each keep 60 slots busy; at 75 % of 10 slots that is 8 pods.
    assert wish(scaling(), SLOTS, loaded(arrival=10, service=6, in_progress=60)) == (
        8,
        ScalingReason.THROUGHPUT,
    )


def test_a_backlog_is_to_be_gone_within_the_target() -> None:
    # 900 jobs in 30 s are 30 a second; of 2 s each that is 60 slots.
    assert wish(scaling(), SLOTS, loaded(backlog=900, service=2)) == (8, ScalingReason.THROUGHPUT)


def test_an_old_job_raises_the_number_of_ready_pods_by_its_age_at_most_twofold() -> None:
    load = loaded(backlog=500, service=0.1, ready=4)

    assert wish(scaling(), SLOTS, replace(load, oldest_age=30))[0] == 1
    assert wish(scaling(), SLOTS, replace(load, oldest_age=45)) == (6, ScalingReason.OLDEST_AGE)
    assert wish(scaling(), SLOTS, replace(load, oldest_age=900)) == (8, ScalingReason.OLDEST_AGE)


def test_starting_pods_do_not_multiply_the_boost_again_at_each_look() -> None:
    """The first mistake that simulation found: the boost is of ready pods, not of those asked for."""
    load, memory = loaded(backlog=10_000, service=0.01, oldest_age=300, ready=4), ScalerMemory()
    current = 4
    for look in range(12):
        found, memory = decide(
            scaling(maxReplicas=100),
            SLOTS,
            replace(load, at=look * 5.0),
            memory,
            current=current,
            now=look * 5.0,
        )
        current = found.replicas

    assert current == 8


def test_short_jobs_that_come_steadily_keep_their_headroom() -> None:
    """The second one: by the jobs present alone, 100 a second of 0.5 s would get 5 pods and no headroom."""
    load = loaded(arrival=100, service=0.5, backlog=0, in_progress=45)

    assert wish(scaling(), SLOTS, load) == (7, ScalingReason.THROUGHPUT)


def test_three_jobs_cannot_use_five_pods() -> None:
    assert wish(scaling(), SLOTS, loaded(backlog=3, service=600)) == (1, ScalingReason.BOUND_BY_WORK)


def test_pods_beyond_the_queues_concurrency_would_be_idle() -> None:
    load = loaded(backlog=1000, service=10, concurrency=25)

    assert wish(scaling(), SLOTS, load) == (3, ScalingReason.BOUND_BY_CONCURRENCY)
    assert decided(load, 3).limited is ConditionReason.CONCURRENCY_LIMIT


def test_pods_beyond_the_rate_limit_would_be_idle() -> None:
    load = loaded(backlog=1000, service=10, rate_limit=1.5, oldest_age=500, ready=5)

    assert wish(scaling(), SLOTS, load) == (2, ScalingReason.BOUND_BY_RATE_LIMIT)


# --- windows, policies and bounds ---


def test_the_first_pods_come_at_once_and_at_most_four_in_a_period() -> None:
    assert decided(loaded(backlog=3000, service=2), 0).replicas == 4


def test_pods_at_most_double_in_a_period() -> None:
    assert decided(loaded(backlog=30_000, service=2), 6).replicas == 12


def test_pods_added_within_a_period_count_against_it() -> None:
    memory = ScalerMemory(replicas=6, changes=((0.0, 4),))

    assert decided(loaded(at=10.0, backlog=30_000, service=2), 6, memory).replicas == 6
    assert decided(loaded(at=20.0, backlog=30_000, service=2), 6, memory).replicas == 12


def test_pods_only_go_when_nobody_wished_for_them_for_five_minutes() -> None:
    quiet = loaded(at=299.0, in_progress=1)
    memory = ScalerMemory(replicas=8, wishes=((0.0, 8),))

    assert decided(quiet, 8, memory).replicas == 8
    assert decided(replace(quiet, at=301.0), 8, memory).replicas == 4


def test_an_operator_that_has_just_begun_keeps_the_pods_for_a_window() -> None:
    world = World({"workers": autoscaled(slots=1)}).run(30)
    world.enqueue(400, 10)
    world.run(120)
    many = world.deployment("1").replicas
    assert many > 10
    world.pending.clear()
    world.run(60)
    assert world.deployment("1").replicas == many

    world.memory = Memory()
    world.run(120)

    assert world.deployment("1").replicas == many


def test_a_moment_with_nothing_to_do_takes_no_pod_away() -> None:
    memory = ScalerMemory(replicas=8, wishes=((0.0, 8),))

    assert decided(loaded(at=5.0), 8, memory).replicas == 8
    assert decided(loaded(at=5.0), 8, memory, minReplicas=2).replicas == 8
    # Then they go as after any peak; and all of them, after a time of nothing.
    assert decided(loaded(at=301.0), 8, memory).replicas == 4
    assert decided(loaded(at=301.0), 8, replace(memory, idle_since=1.0)).replicas == 0
    assert decided(loaded(at=301.0), 8, replace(memory, idle_since=1.0), minReplicas=2).replicas == 4


def test_pods_never_go_below_what_runs() -> None:
    assert decided(loaded(in_progress=65, service=0.1), 10).replicas == 7


def test_a_small_change_is_not_made() -> None:
    assert decided(loaded(arrival=7.7, service=10, in_progress=110), 10).replicas == 10


def test_the_last_pod_goes_after_five_minutes_of_nothing() -> None:
    memory = ScalerMemory(replicas=1, idle_since=0.0)

    assert decided(loaded(at=299.0), 1, memory).replicas == 1
    assert decided(loaded(at=300.0), 1, memory).replicas == 0


def test_the_last_pod_stays_when_a_job_is_due_before_it_could_be_back() -> None:
    memory = ScalerMemory(replicas=1, idle_since=0.0)

    assert decided(loaded(at=900.0, due_later=True), 1, memory).replicas == 1


def test_pods_are_warm_before_a_job_is_due() -> None:
    assert decided(loaded(due_soon=40, service=10), 0).replicas == 2


def test_there_are_at_least_the_fewest_and_at_most_the_most() -> None:
    assert decided(loaded(), 5, minReplicas=2).limited is ConditionReason.AT_MIN_REPLICAS
    assert decided(loaded(at=1000.0), 2, minReplicas=2).replicas == 2
    most = decided(loaded(backlog=100_000, service=5), 18)
    assert (most.replicas, most.limited) == (20, ConditionReason.AT_MAX_REPLICAS)


def test_numbers_that_are_too_old_hold_the_pods_or_raise_them_to_the_fallback() -> None:
    spec, load = scaling(fallbackReplicas=3), loaded(at=0.0, backlog=1000)
    for current, expected in ((1, 3), (7, 7), (0, 3)):
        found, _ = decide(spec, SLOTS, load, ScalerMemory(), current=current, now=31.0)
        assert (found.replicas, found.reason) == (expected, ScalingReason.STALE_SIGNAL)


def test_pods_that_cannot_be_placed_stop_the_boost() -> None:
    load = loaded(backlog=500, service=0.1, ready=4, oldest_age=900, is_stuck=True)

    assert wish(scaling(), SLOTS, load) == (1, ScalingReason.THROUGHPUT)


def test_a_change_that_somebody_else_made_counts_as_one() -> None:
    memory = ScalerMemory(replicas=2)

    _, memory = decide(scaling(), SLOTS, loaded(backlog=500), memory, current=6, now=0.0)

    assert memory.changes == ((0.0, 4),)


def test_a_clock_that_was_set_back_holds_nothing_up_for_longer_than_its_windows() -> None:
    before = ScalerMemory(replicas=10, at=9e6, wishes=((9e6, 10),), changes=((9e6, 8),), idle_since=9e6)
    spec, quiet, busy = scaling(), loaded(in_progress=1), loaded(backlog=30_000, service=2)

    _, memory = decide(spec, SLOTS, quiet, before, current=10, now=0.0)
    assert decided(replace(quiet, at=301.0), 10, memory).replicas == 5
    assert decided(replace(busy, at=16.0), 10, memory).replicas == 20

    _, memory = decide(spec, SLOTS, loaded(), replace(before, replicas=1), current=1, now=0.0)
    assert decided(loaded(at=300.0), 1, memory).replicas == 0


numbers = st.integers(0, 10_000)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    load=st.builds(
        Load,
        at=st.just(0.0),
        backlog=numbers,
        oldest_age=st.floats(0, 1e6),
        in_progress=numbers,
        arrival=st.floats(0, 1e4),
        service=st.floats(0.001, 1e5),
        ready=st.integers(0, 50),
        due_soon=numbers,
        due_later=st.booleans(),
        concurrency=st.none() | st.integers(0, 1000),
        rate_limit=st.none() | st.floats(0.01, 1e4),
        is_stuck=st.booleans(),
    ),
    current=st.integers(0, 20),
    least=st.integers(0, 5),
)
def test_a_decision_is_within_its_bounds_and_never_below_what_runs(
    load: Load, current: int, least: int
) -> None:
    found = decided(load, current, minReplicas=least)

    assert found.replicas <= 20
    assert found.replicas >= least
    if load.in_progress:
        assert found.replicas >= min(current, -(-load.in_progress // SLOTS), 20)
    if found.replicas == 0 and current:
        assert load.in_progress == 0


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(total=st.integers(0, 10_000), weight=st.integers(1, 99))
def test_a_split_gives_both_versions_a_pod_and_adds_at_most_two(total: int, weight: int) -> None:
    new, old = split(total, weight)

    assert new >= 1
    assert old >= 1
    assert new + old <= max(total + 1, 2)
    assert new >= total * weight / 100


# --- what it is measured from ---


def worker(id_: int, finished: int, seconds: float) -> WorkerInfo:
    return WorkerInfo(
        id_, "w", "h", 1, "1", ("mail",), ("send",), 10, succeeded=finished, run_seconds=seconds
    )


def database(*counts: Counts, queues: tuple[QueueConfig, ...] = (), **said: Any) -> DatabaseState:
    return DatabaseState(now=START, counts=counts, queues=queues, **said)


def test_jobs_of_a_paused_queue_are_no_backlog_but_held() -> None:
    found, _ = measure(
        database(Counts("mail", pending=50), queues=(QueueConfig("mail", paused=True),)),
        ("mail",),
        scaling(),
        ScalerMemory(),
        0.0,
    )

    assert (found.backlog, found.held) == (0, 50)


def test_a_pause_that_is_over_holds_nothing_though_nobody_has_ended_it() -> None:
    ends = QueueConfig("mail", paused=True, paused_until=START)

    found, _ = measure(
        database(Counts("mail", pending=50), queues=(ends,)), ("mail",), scaling(), ScalerMemory(), 0.0
    )

    assert (found.backlog, found.held) == (50, 0)


def test_jobs_of_a_paused_kind_are_no_backlog_but_held() -> None:
    found, _ = measure(
        database(
            Counts("mail", pending=50, in_progress=4),
            queues=(QueueConfig("mail", concurrency=4),),
            unhandled={
                "mail": [Unhandled("mail", "fax", 30, due=2, paused=True), Unhandled("mail", "sned", 5)]
            },
        ),
        ("mail",),
        scaling(),
        ScalerMemory(),
        0.0,
    )

    assert (found.backlog, found.held) == (15, 45)


def test_jobs_that_nobody_could_run_are_no_work() -> None:
    long_ago = START - timedelta(hours=1)
    counts = Counts("mail", pending=50, oldest_pending_at=long_ago)

    none, _ = measure(
        database(
            counts, unhandled={"mail": [Unhandled("mail", "fax", 30), Unhandled("mail", "sned", 20, due=9)]}
        ),
        ("mail",),
        scaling(),
        ScalerMemory(),
        0.0,
    )
    some, _ = measure(
        database(
            counts,
            unhandled={"mail": [Unhandled("mail", "sned", 20)], "other": [Unhandled("other", "fax", 9)]},
        ),
        ("mail",),
        scaling(),
        ScalerMemory(),
        0.0,
    )

    assert (none.backlog, none.held, none.oldest_age) == (0, 0, 0.0)
    assert (some.backlog, some.oldest_age) == (30, 0.0)


@pytest.mark.parametrize(
    ("handled", "due"),
    [({}, 1), ({"mail": {"report"}}, 1), ({"mail": {"send"}}, 0), ({"other": {"send"}}, 1)],
)
def test_a_cron_whose_jobs_nobody_could_run_is_no_work(handled: dict[str, set[str]], due: int) -> None:
    overdue = CronConfig("hourly", "@hourly", "report", queue="mail", next_fire_at=START)

    found, _ = measure(database(crons=(overdue,), handled=handled), ("mail",), scaling(), ScalerMemory(), 0.0)

    assert (found.due_soon, found.due_later) == (due, bool(due))


def test_a_pool_is_scaled_on_the_sum_of_the_queues_that_it_serves() -> None:
    old, older = START - timedelta(seconds=5), START - timedelta(seconds=9)
    counts = (
        Counts("mail", pending=5, in_progress=1, oldest_pending_at=old),
        Counts("fax", pending=7, oldest_pending_at=older),
        Counts("other", pending=100),
    )

    found, _ = measure(database(*counts), ("mail", "fax"), scaling(), ScalerMemory(), 0.0)

    assert (found.backlog, found.in_progress, found.oldest_age) == (12, 1, 9.0)


def test_arrivals_are_what_finished_and_what_more_is_inside() -> None:
    memory = ScalerMemory(at=0.0, inside=10, tallies={1: Tally(100, 50.0)})
    for second in range(5, 1000, 5):
        finished = 100 + 2 * second
        memory = followed(memory, 10 + second, 0, [worker(1, finished, finished / 2)], float(second))

    assert memory.arrival == pytest.approx(3.0, rel=0.01)
    assert memory.service == pytest.approx(0.5, rel=0.01)


def test_the_time_of_a_job_is_taken_for_a_second_until_enough_were_measured() -> None:
    memory = followed(ScalerMemory(at=0.0), 0, 0, [worker(1, 5, 50.0)], 5.0)
    assert memory.service == pytest.approx(1 + 9 * 5 / 20)

    memory = followed(ScalerMemory(at=0.0), 0, 0, [worker(1, 20, 200.0)], 5.0)
    assert memory.service == pytest.approx(10.0)


def test_jobs_that_have_run_for_minutes_do_not_pass_for_jobs_of_a_second() -> None:
    memory = ScalerMemory(at=0.0)
    for second in range(5, 305, 5):
        memory = followed(memory, 100, 10, [], float(second))

    found, _ = measure(
        database(Counts("mail", pending=100, in_progress=10)), ("mail",), scaling(), memory, 305.0
    )

    assert found.service == pytest.approx(305, rel=0.05)


def test_estimates_follow_upwards_faster_than_downwards() -> None:
    up = followed(ScalerMemory(at=0.0), 300, 0, [], 30.0)
    down = followed(ScalerMemory(at=0.0, arrival=10.0), 0, 0, [], 30.0)

    assert up.arrival == pytest.approx(5.0)
    assert down.arrival == pytest.approx(10 * 0.5**0.25)


def test_a_worker_that_is_gone_takes_nothing_back() -> None:
    memory = ScalerMemory(at=0.0, tallies={1: Tally(100, 50.0)})

    assert followed(memory, 0, 0, [], 5.0).arrival == 0.0


def test_a_cron_that_fires_soon_is_work_that_is_due() -> None:
    cron = CronConfig(
        "nightly", "0 2 * * *", "report", queue="mail", next_fire_at=START + timedelta(seconds=50)
    )

    found, _ = measure(database(crons=(cron,)), ("mail",), scaling(prewarmSeconds=60), ScalerMemory(), 0.0)
    cold, _ = measure(database(crons=(cron,)), ("mail",), scaling(), ScalerMemory(), 0.0)

    assert found.due_soon == 1
    assert (cold.due_soon, cold.due_later) == (0, False)


def test_what_is_overdue_wakes_a_pool_that_is_not_prewarmed() -> None:
    """Only a worker makes a delayed job claimable, or fires a cron: with all pods asleep it would wait for ever."""
    cron = CronConfig("hourly", "@hourly", "report", queue="mail", next_fire_at=START)
    delayed = {"mail": (40, START)}  # as many within the time a pod takes to start; the first is due

    fires, _ = measure(database(crons=(cron,)), ("mail",), scaling(), ScalerMemory(), 0.0)
    waits, _ = measure(replace(database(), upcoming=delayed), ("mail",), scaling(), ScalerMemory(), 0.0)

    assert (fires.due_soon, waits.due_soon) == (1, 1)
    assert wish(scaling(), 10, fires)[0] == 1


def test_a_cron_of_which_nobody_has_said_yet_when_it_fires_wakes_a_worker_that_does() -> None:
    """It is new, or was edited, while all pods slept: a worker that leads finds its first time."""
    new = CronConfig("nightly", "0 2 * * *", "report", queue="mail")
    disabled = replace(new, enabled=False)

    found, _ = measure(database(crons=(new,)), ("mail",), scaling(), ScalerMemory(), 0.0)
    off, _ = measure(database(crons=(disabled,)), ("mail",), scaling(), ScalerMemory(), 0.0)

    assert (found.due_soon, off.due_soon) == (1, 0)


# --- in a pool ---


def test_an_enqueue_wakes_a_sleeping_pool_at_the_next_look() -> None:
    world = World({"workers": autoscaled()}).run(500, step=5)
    assert world.deployment("1").replicas == 0

    world.enqueue(1)
    world.look()

    assert world.deployment("1").replicas == 1
    assert world.said()[-1] == "WokenUp"


def test_the_status_says_why_there_are_so_many_pods() -> None:
    world = World({"workers": autoscaled(slots=2)}).run(60)
    world.enqueue(100, 20)
    world.run(60)

    said = world.status["scaling"]
    assert said["replicas"] == world.deployment("1").replicas == world.status["desiredReplicas"]
    assert "jobs wait" in said["message"]
    assert said["inputs"]["slots"] == 2
    assert world.condition("ScalingActive") == ("True", "Scaling")


def test_to_observe_is_to_say_and_not_to_act() -> None:
    world = World({"workers": autoscaled(slots=2)}).run(60)
    world.annotations = {"forge-jobs.dev/autoscaling": "observe"}
    world.enqueue(400, 20)
    world.run(60)

    assert world.deployment("1").replicas == 1
    assert world.status["desiredReplicas"] > 1
    assert world.condition("ScalingActive") == ("False", "Observing")


def test_replicas_that_somebody_sets_are_what_there_is_whatever_waits() -> None:
    world = World().run(60)
    world.enqueue(1000, 60)
    world.run(120)
    assert world.deployment("1").replicas == 2

    world.spec["workers"]["replicas"] = 5  # as kubectl scale writes it
    world.generation += 1
    world.look()

    assert world.deployment("1").replicas == 5
    assert world.status["selector"].startswith("forge-jobs.dev/pool-uid=")
    assert world.condition("ScalingActive") == ("False", "FixedReplicas")


def test_draining_versions_are_not_scaled_by_the_work() -> None:
    world = World({"workers": autoscaled(slots=1, scaling={"maxReplicas": 8})}).run(60)
    world.enqueue(3, 400)
    world.run(60)
    world.change(workers=autoscaled("2", slots=1, scaling={"maxReplicas": 8}))
    world.run(60)
    assert world.states()["1"] == "draining"
    busy = world.held(world.version("1").id)

    world.enqueue(500, 10)
    world.run(200)

    assert world.deployment("1").replicas <= max(1, busy)
    assert world.deployment("2").replicas == 8
