"""A version that drains lives on for the jobs that only it may go on with."""

from typing import Any

from forge_jobs.model import PinnedJobs
from forge_operator.plan.scaling.load import measure
from forge_operator.specs import AutoscalingSpec
from forge_operator.state.memory import ScalerMemory
from tests.world import World, autoscaled, workers

HOUR = 3600


def draining(*, jobs: int = 1, ready: int = 0, **said: Any) -> World:
    """A pool whose version 1 drains, and to which so many jobs are pinned, of which some are ready to go on."""
    world = World({"workers": workers(**said)}).run(60)
    pin(world, jobs, ready)
    world.change(workers=workers("2", **said))
    world.run(60)
    assert world.states() == {"1": "draining", "2": "current"}
    return world


def pin(world: World, jobs: int, ready: int = 0) -> None:
    """So many jobs are pinned to version 1, of which some are ready to go on."""
    version = world.version("1")
    world.pinned = [PinnedJobs("mail", "1", version.pool, version.id, jobs, ready, 0)] if jobs else []


def test_a_version_whose_pinned_jobs_sleep_has_no_pods_and_is_not_drained() -> None:
    world = draining()

    world.run(24 * HOUR, every=60, step=30)

    assert world.states()["1"] == "draining"
    assert world.deployment("1").replicas == 0
    assert any("PinnedJobsSleep" in one for one in world.said())


def test_it_has_pods_again_when_a_pinned_job_wakes_and_none_when_it_sleeps_again() -> None:
    world = draining()
    assert world.deployment("1").replicas == 0

    pin(world, 1, ready=1)
    world.run(30)
    assert world.deployment("1").replicas == 1
    assert any("PinnedJobs" in one for one in world.said())

    pin(world, 1)
    world.run(60)
    assert world.deployment("1").replicas == 0
    assert world.states()["1"] == "draining"


def test_it_is_drained_and_goes_when_no_pinned_job_is_left() -> None:
    world = draining()

    pin(world, 0)
    world.run(60)

    assert world.states()["1"] == "drained"
    world.run(2 * HOUR, every=30, step=10)
    assert world.states()["1"] == "retired"


def test_a_version_whose_deployment_is_gone_is_drained_and_says_what_is_left() -> None:
    world = draining(jobs=2)
    del world.deployments[world.deployment("1").name]

    world.run(60)

    assert world.states()["1"] in ("drained", "retired")
    assert any("PinnedJobsLeft" in one for one in world.said())


def test_a_drain_that_may_be_ended_ends_pinned_jobs_with_it() -> None:
    world = draining(jobs=2, drain={"timeoutSeconds": 600, "onTimeout": "Terminate"})
    assert world.states()["1"] == "draining"

    world.run(900)

    assert world.states()["1"] in ("drained", "retired")
    assert any("PinnedJobsLeft" in one for one in world.said())


def test_a_drain_that_takes_too_long_says_how_many_pinned_jobs_it_waits_for() -> None:
    world = draining(jobs=2, drain={"timeoutSeconds": 600, "onTimeout": "Wait"})

    world.run(900)

    assert world.condition("Progressing")[1] == "DrainOverdue"
    assert world.message("Progressing").endswith(
        "still runs 0 jobs, and 2 jobs that only it may go on with are left."
    )


def test_versions_that_sleep_hold_up_no_rollout() -> None:
    world = draining(rollout={"maxActiveVersions": 2})

    world.change(workers=workers("3", rollout={"maxActiveVersions": 2}))
    world.run(120)

    assert world.states()["3"] == "current"


def test_the_status_says_how_many_jobs_are_pinned_to_a_version() -> None:
    world = draining(jobs=3)

    [old] = [version for version in world.status["versions"] if version["version"] == "1"]

    assert old["pinned"] == 3
    assert "3 jobs that only it may go on with are left" in world.message("Progressing")


def test_jobs_that_are_pinned_to_another_version_ask_for_no_pods_of_this_one() -> None:
    world = World({"workers": autoscaled()}).run(60)
    world.enqueue(5, 100)
    world.pinned = [PinnedJobs("mail", "0", "pool", "gone", 5, 5, 0)]

    load, _ = measure(world.database(), ("mail",), AutoscalingSpec(max_replicas=9), ScalerMemory(), 0.0)

    assert load.backlog == 0


def test_a_pool_that_is_to_have_no_pods_has_none_for_pinned_jobs_until_it_has_replicas_again() -> None:
    world = draining()
    world.change(workers=workers("2", replicas=0))
    pin(world, 1, ready=1)
    world.run(120)

    assert world.states()["1"] == "draining"
    assert world.deployment("1").replicas == 0

    world.change(workers=workers("2", replicas=1))
    world.run(60)
    assert world.deployment("1").replicas == 1
