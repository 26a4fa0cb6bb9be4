"""A version that has a share of the slots is judged by what happens: what is broken never serves alone."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from forge_operator.state.memory import Memory
from tests.world import World, workers

# What is found takes long to play again, so it is shown as it was found.
UNSHRUNK = (Phase.explicit, Phase.reuse, Phase.generate)
STEPS = [{"weightPercent": 20, "pauseSeconds": 60}, {"weightPercent": 50, "pauseSeconds": 60}]


def rollout(steps: list[dict[str, int]] = STEPS, **abort: int) -> dict[str, Any]:
    return {"strategy": "Progressive", "steps": steps, "abort": abort}


def ramping(
    said: dict[str, Any] | None = None, *, arrivals: float = 6, length: float = 1, **spec: Any
) -> World:
    """Version 1 has served for a while, and version 2 has just got its first share."""
    given = {"replicas": 5, "rollout": said or rollout(), **spec}
    world = World({"workers": workers(**given)})
    world.arrivals, world.length = arrivals, length
    world.run(200)
    assert world.states() == {"1": "current"}
    world.change(workers=workers("2", **given))
    while world.states().get("2") != "ramping":
        world.run(1, every=1)
    return world


def all_jobs_are_there(world: World) -> bool:
    return world.enqueued == len(world.pending) + sum(1 for _ in world.in_progress()) + world.done


def hang(world: World, version_id: str) -> None:
    world.hanging.add(version_id)


def fail(world: World, version_id: str) -> None:
    world.failing.add(version_id)


def crash(world: World, version_id: str) -> None:
    world.crashing.add(version_id)


def leak(world: World, version_id: str) -> None:
    world.leaking.add(version_id)


def crawl(world: World, version_id: str) -> None:
    world.slowness[version_id] = 10.0


Break = Callable[[World, str], None]
BROKEN: dict[str, tuple[Break, str]] = {
    "fails": (fail, "failed ("),
    "hangs": (hang, "hang: they have run for more than 60 s"),
    "crashes": (crash, "were restarted 3 times"),
    "leaks": (leak, "were OOMKilled 3 times"),
    "is ten times slower": (crawl, "times as long as those of the previous version"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_version_that_is_broken_goes_back_and_says_by_what(how: str) -> None:
    breaks, sentence = BROKEN[how]
    world = ramping()
    broken = world.version("2")
    breaks(world, broken.id)

    world.run(600)

    assert world.states() == {"1": "current", "2": "failed"}
    assert world.condition("Progressing") == ("False", "RolloutAborted")
    assert sentence in world.message("Progressing")
    assert "; version 1 serves again." in world.message("Progressing")
    assert "RolloutAborted" in world.said()
    assert world.deployment("2").replicas == 0
    assert world.deployment("1").replicas == 5
    assert all_jobs_are_there(world)
    assert len(world.pending) < 30, "what waited meanwhile is worked off"
    print(f"version 2 {how}: {world.share_touched('2'):.1f} % of the jobs of ten minutes were touched by it")


@pytest.mark.parametrize("how", BROKEN)
def test_an_operator_that_is_another_every_few_looks_judges_the_same(how: str) -> None:
    breaks, sentence = BROKEN[how]
    world = ramping()
    breaks(world, world.version("2").id)

    for _ in range(60):
        world.run(10)
        world.memory = Memory()

    assert world.states() == {"1": "current", "2": "failed"}
    assert sentence in world.message("Progressing")


def test_why_a_version_went_back_is_still_said_by_an_operator_that_was_just_started() -> None:
    world = ramping()
    crash(world, world.version("2").id)
    world.run(300)
    said = world.message("Progressing")

    world.memory, world.status = Memory(), {}
    world.run(300)

    assert world.message("Progressing") == said


def test_a_version_that_is_as_good_takes_over() -> None:
    world = ramping()

    world.run(200)

    assert world.states()["2"] == "current"


@pytest.mark.parametrize("breaks", [fail, crawl, hang])
def test_a_version_that_is_as_bad_as_the_one_before_does_not_go_back(breaks: Break) -> None:
    world = ramping()
    for each in ("1", "2"):
        breaks(world, world.version(each).id)

    world.run(600)

    assert world.states()["2"] != "failed"


def test_a_failure_message_is_one_that_the_database_can_keep_whatever_containers_say() -> None:
    world = ramping()
    new = world.version("2").id
    world.complaint = "CrashLoopBackOff (\x1b[31m" + 900 * "x" + ")"
    crash(world, new)

    world.run(400)

    message = world.version("2").failure_message
    assert message is not None and len(message) <= 512 and message.isprintable()
    assert "restarted 3 times" in message and message.endswith("; version 1 serves again.")


# --- too little is known ---


def test_a_version_that_gets_no_jobs_is_not_promoted_by_time_alone() -> None:
    world = ramping(arrivals=0)

    world.run(7200, every=10, step=5)

    assert world.states() == {"1": "current", "2": "ramping"}
    assert world.version("2").weight_percent == 50, "steps without work go on, but for the last"
    assert world.condition("Progressing") == ("True", "Inconclusive")
    assert world.message("Progressing") == (
        f"Version 2 ({world.version('2').id}) has run no job to be judged by: it takes over when 20 jobs of it have "
        "ended, or when it is promoted by annotation."
    )
    assert world.condition("Ready") == ("True", "Serving")
    assert world.said().count("Inconclusive") == 1
    assert world.deployment("2").replicas == 3, "it keeps its share"


def test_it_takes_over_when_jobs_have_come_after_all() -> None:
    world = ramping(arrivals=0)
    world.run(600)

    world.arrivals = 6
    world.run(60)

    assert world.states()["2"] == "current"


def test_or_when_somebody_promotes_it() -> None:
    world = ramping(arrivals=0)
    world.run(600)

    world.annotations = {"forge-jobs.dev/promote": world.version("2").id}
    world.run(10)

    assert world.states()["2"] == "current"


def test_a_step_with_too_few_jobs_is_held_until_there_are_enough() -> None:
    world = ramping(arrivals=0.2)

    world.run(75)
    assert world.version("2").weight_percent == 20
    assert world.condition("Progressing") == ("True", "Inconclusive")
    assert "and 20 are needed to judge it" in world.message("Progressing")

    world.run(3000, every=10)
    assert world.states()["2"] == "current"


def test_a_version_that_takes_no_jobs_while_the_other_has_them_is_held() -> None:
    world = ramping(arrivals=2)
    world.unwilling.add(world.version("2").id)  # whatever keeps it from claiming

    world.run(1200)

    assert world.states() == {"1": "current", "2": "ramping"}
    assert world.version("2").weight_percent == 20


def test_a_hold_ends_when_it_may_not_last_for_ever() -> None:
    world = ramping(rollout(inconclusiveHoldSeconds=300), arrivals=0)
    world.run(400)
    assert world.states()["2"] == "ramping"

    world.run(100)

    assert world.states() == {"1": "current", "2": "failed"}
    assert "no job to be judged by" in world.message("Progressing")
    assert "after 300 s of waiting; version 1 serves again." in world.message("Progressing")


# --- what is no fault of the version ---


def test_one_container_that_was_restarted_holds_the_step_for_as_long_as_it_lasts() -> None:
    world = ramping()
    world.run(50)
    (pod,) = world.of(world.version("2").id)
    world.die(pod)
    world.run(50)
    assert world.condition("Progressing") == ("True", "Inconclusive")
    assert "A container of version 2" in world.message("Progressing")

    world.run(300)

    assert world.states()["2"] == "current"


def test_restarts_before_it_had_a_share_do_not_count() -> None:
    world = ramping()
    (pod,) = world.of(world.version("2").id)
    pod.restarts, pod.restarted = 7, world.time - 30

    world.run(300)

    assert world.states()["2"] == "current"


def test_a_node_that_takes_workers_of_both_versions_with_it_aborts_nothing() -> None:
    world = ramping(rollout(maxRestarts=0))
    for pod in list(world.pods.values()):
        world.die(pod)

    world.run(400)

    assert world.states()["2"] == "current"


def test_some_jobs_that_always_took_long_are_no_hang() -> None:
    world = ramping(rollout(minSamples=20), arrivals=4, slots=10)
    for _ in range(60):
        world.enqueue(1, 400)
        world.run(15)

    assert world.states()["2"] in ("ramping", "current")
    world.run(1500)
    assert world.states()["2"] == "current"


def test_a_warm_up_is_forgiven_within_a_long_step() -> None:
    world = ramping(rollout([{"weightPercent": 20, "pauseSeconds": 600}]))
    new = world.version("2").id
    world.slowness[new] = 10.0
    world.run(40)
    del world.slowness[new]

    world.run(1000)

    assert world.states()["2"] == "current"


@pytest.mark.parametrize(
    ("abort", "breaks"),
    [
        ({"maxFailurePercent": 100}, fail),
        ({"maxRestarts": 1_000_000, "maxFailurePercent": 100, "minSamples": 1}, crash),
        ({"maxSlowdownFactor": 100}, crawl),
    ],
)
def test_a_judgement_can_be_switched_off(abort: dict[str, Any], breaks: Break) -> None:
    world = ramping(rollout(**abort))
    breaks(world, world.version("2").id)

    world.run(600)

    assert world.states()["2"] != "failed"


# --- readiness ---


def test_a_step_is_held_while_no_pod_is_ready_and_goes_back_in_the_end() -> None:
    world = ramping(replicas=5)
    new = world.version("2").id
    world.arrivals = 0
    world.broken.add(new)
    for pod in world.of(new):
        pod.starts = float("inf")
    world.run(120)
    assert world.condition("Progressing") == ("True", "Inconclusive")
    assert "has 0 of 1 pod ready (ImagePullBackOff" in world.message("Progressing")

    world.run(600)

    assert world.states() == {"1": "current", "2": "failed"}
    assert f"No pod of version 2 ({new}) is ready" in world.message("Progressing")


# --- the jobs of a version that went back ---


def test_hung_jobs_of_a_version_that_went_back_cost_no_attempt() -> None:
    world = ramping()
    hang(world, world.version("2").id)

    world.run(600)

    assert world.states()["2"] == "failed"
    assert not world.held(world.version("2").id)
    assert {job.attempts for job in world.pending} <= {0}
    assert world.handed_back == 2
    assert "HandedBack" in world.said()


def test_jobs_of_a_version_that_went_back_may_end_within_their_time() -> None:
    world = ramping(rollout(handBackSeconds=200), slots=4)
    new = world.version("2").id
    while not any(job.seconds == 150 for job in world.in_progress(new)):
        world.enqueue(1, 150)
        world.step()
    fail(world, new)

    world.run(400)

    assert world.states()["2"] == "failed"
    assert world.handed_back == 0


def test_a_version_that_went_back_gives_its_jobs_back_also_when_it_is_not_asked_for_any_more() -> None:
    world = ramping()
    hang(world, world.version("2").id)
    while world.states()["2"] != "failed":
        world.run(1, every=1)

    world.change(workers=workers("1", replicas=5, rollout=rollout()))
    world.run(600)

    assert world.states()["1"] == "current"
    assert world.states()["2"] in ("retired", "drained")
    assert world.handed_back == 2
    assert all_jobs_are_there(world)


# --- whatever the rollout and the load ---


@settings(max_examples=25, deadline=None, phases=UNSHRUNK, suppress_health_check=[HealthCheck.too_slow])
@given(
    how=st.sampled_from(sorted(BROKEN)),
    arrivals=st.sampled_from((0.5, 2.0, 6.0)),
    length=st.sampled_from((0.5, 1.0, 5.0)),
    percents=st.lists(st.integers(5, 90), min_size=1, max_size=3, unique=True).map(sorted),
    pause=st.sampled_from((30, 60, 300)),
    replicas=st.integers(2, 6),
    slots=st.integers(1, 6),
    restarts=st.integers(1, 60),
    after=st.integers(0, 25),
)
def test_no_version_that_is_broken_is_ever_promoted_and_no_job_is_lost(
    how: str,
    arrivals: float,
    length: float,
    percents: list[int],
    pause: int,
    replicas: int,
    slots: int,
    restarts: int,
    after: int,
) -> None:
    if how == "leaks":
        pause = max(pause, 60)  # nobody can know of what happens later
    steps = [{"weightPercent": each, "pauseSeconds": pause} for each in percents]
    arrivals = min(arrivals, 0.5 * replicas * slots / length)  # the old version alone can do it
    world = ramping(rollout(steps), arrivals=arrivals, length=length, replicas=replicas, slots=slots)
    if how in (
        "hangs",
        "crashes",
        "leaks",
    ):  # else the good jobs before would be most of those that are judged
        world.run(after)
    breaks, _ = BROKEN[how]
    breaks(world, world.version("2").id)

    for _ in range(40):
        world.run(restarts)
        world.memory = Memory()
        assert world.states()["1"] == "current", f"version 2 {how} and was promoted"
        assert all_jobs_are_there(world)
    world.run(2000, every=10)

    assert world.states()["1"] == "current", f"version 2 {how} and was promoted"
    assert all_jobs_are_there(world)


@settings(max_examples=20, deadline=None, phases=UNSHRUNK, suppress_health_check=[HealthCheck.too_slow])
@given(
    arrivals=st.sampled_from((0.5, 2.0, 6.0)),
    length=st.sampled_from((0.5, 1.0, 5.0, 90.0)),
    percent=st.integers(5, 90),
    replicas=st.integers(2, 6),
    slots=st.integers(2, 6),
    restarts=st.integers(1, 60),
)
def test_a_version_that_is_as_good_is_never_sent_back_and_takes_over_when_it_has_had_enough_jobs(
    arrivals: float, length: float, percent: int, replicas: int, slots: int, restarts: int
) -> None:
    arrivals = min(arrivals, 0.7 * replicas * slots / length)
    steps = [{"weightPercent": percent, "pauseSeconds": 60}]
    world = ramping(rollout(steps), arrivals=arrivals, length=length, replicas=replicas, slots=slots)

    for _ in range(200):
        world.run(restarts)
        world.memory = Memory()
        if world.states()["2"] == "current":
            return
        assert world.states()["2"] == "ramping", world.message("Progressing")
    world.run(6000, every=30, step=2)

    assert world.states()["2"] == "current", world.message("Progressing")


def test_a_plan_with_a_judgement_leaves_nothing_to_do() -> None:
    for breaks, _ in BROKEN.values():
        world = ramping()
        breaks(world, world.version("2").id)
        for _ in range(40):
            world.run(10)
            world.settle()
