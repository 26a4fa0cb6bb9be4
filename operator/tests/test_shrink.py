"""How pods are taken away without stopping a job."""

from dataclasses import replace

import pytest

from forge_operator.plan import actions as act
from forge_operator.plan.queue import plan
from forge_operator.state.memory import Memory
from forge_operator.state.settings import OperatorSettings
from tests.world import World, workers


def serving(replicas: int = 3, *, honours: bool = True) -> World:
    settings = OperatorSettings(honours_deletion_cost=honours)
    return World({"workers": workers(replicas=replicas)}, settings=settings).run(60)


def shrink(world: World, replicas: int) -> None:
    world.change(workers=workers(replicas=replicas))


def kinds(world: World) -> list[type]:
    told = (act.CordonWorkers, act.SetDeletionCost, act.DeletePod, act.Scale)
    return [type(each) for each in world.look() if isinstance(each, told)]


def test_a_pod_goes_in_steps_gate_then_mark_then_scale() -> None:
    world = serving()
    shrink(world, 2)

    assert kinds(world) == [act.CordonWorkers]
    assert kinds(world) == [], "it has not acknowledged"
    world.step(5)
    assert kinds(world) == [act.SetDeletionCost]
    assert kinds(world) == [act.Scale]
    assert kinds(world) == []


def test_the_pod_that_goes_is_the_one_that_retired() -> None:
    world = serving()
    shrink(world, 2)
    world.look()
    (cordoned,) = [name for name, pod in world.pods.items() if pod.cordoned]

    world.run(20)

    assert cordoned not in world.pods
    assert len(world.pods) == 2


def test_idle_pods_go_first() -> None:
    world = serving()
    world.enqueue(5, 100)
    world.step(1)
    idle = [name for name, pod in world.pods.items() if len(pod.running) < 2]
    for name in idle:
        world.pods[name].running.clear()

    shrink(world, 2)
    world.run(20)

    assert len(world.pods) == 2
    assert not set(idle) & set(world.pods)
    assert world.handed_back == 0


def test_a_busy_pod_is_waited_for() -> None:
    world = serving()
    world.enqueue(6, 100)
    world.run(5)

    shrink(world, 1)
    world.run(60)
    assert len(world.pods) == 3

    world.run(60)
    assert len(world.pods) == 1
    assert world.done == 6
    assert world.handed_back == 0


def test_a_busy_pod_that_was_waited_for_in_vain_gets_its_gate_back_when_another_is_idle() -> None:
    world = serving(2)
    world.enqueue(2, 10_000)
    world.step(1)
    long = next(pod for pod in world.pods.values() if pod.running)
    for pod in world.pods.values():
        pod.running = list(long.running) if pod is long else []
    long.cordoned, long.acknowledged = True, True

    shrink(world, 1)
    world.run(30)

    assert list(world.pods) == [long.name]
    assert not long.cordoned


def test_no_pod_is_left_with_a_closed_gate_when_more_are_wanted_again() -> None:
    world = serving()
    world.enqueue(6, 200)
    world.run(5)
    shrink(world, 1)
    world.run(10)
    assert any(pod.cordoned for pod in world.pods.values())

    shrink(world, 3)
    world.run(10)

    assert not any(pod.cordoned for pod in world.pods.values())
    assert world.deployment("1").replicas == 3


def test_pods_that_never_became_ready_go_first_and_at_once() -> None:
    world = serving(2)
    world.broken.add(world.version("1").id)
    shrink(world, 4)
    world.look()

    shrink(world, 2)
    done = kinds(world)
    world.look()

    assert act.CordonWorkers not in done
    assert world.deployment("1").replicas == 2
    assert all(world.is_ready(pod) for pod in world.alive(world.version("1").id))


def test_the_last_pod_only_goes_when_nobody_holds_a_job_of_the_version() -> None:
    world = serving(1)
    world.enqueue(1, 100)
    world.run(5)

    shrink(world, 0)
    world.run(60)
    assert len(world.pods) == 1

    world.run(60)
    assert not world.pods
    assert world.done == 1


def test_where_deletion_costs_are_not_honoured_idle_pods_are_deleted_by_name() -> None:
    world = serving(3, honours=False)
    world.enqueue(4, 100)
    world.step(1)
    busy = {name for name, pod in world.pods.items() if pod.running}

    shrink(world, len(busy))
    world.run(30)

    assert set(world.pods) == busy
    assert world.handed_back == 0


def test_a_pod_without_a_known_worker_stays_while_it_may_hold_a_job() -> None:
    world = serving(2)
    world.enqueue(2, 100)
    world.step(1)
    busy = [pod for pod in world.pods.values() if pod.running]
    observed = world.observe()
    nameless = tuple(replace(each, pod=None) for each in observed.database.workers)  # type: ignore[union-attr]
    shrink(world, 1)
    observed = replace(
        world.observe(),
        database=replace(observed.database, workers=nameless),  # type: ignore[arg-type]
    )

    assert busy
    assert not [each for each in plan(observed).actions if isinstance(each, act.Scale | act.SetDeletionCost)]


@pytest.mark.parametrize("replicas", (0, 1, 2))
def test_an_operator_that_starts_anew_in_the_middle_goes_on(replicas: int) -> None:
    world = serving()
    shrink(world, replicas)
    for _ in range(6):
        world.look()
        world.memory = Memory()
        world.step(3)

    world.run(30)

    assert len(world.pods) == replicas
    assert world.settle() == 0


def test_the_last_pod_stays_while_a_dead_worker_holds_a_job_of_the_version() -> None:
    world = serving(1)
    seen = World.seen_version
    world.seen_version = lambda version: replace(seen(world, version), in_progress=1)  # type: ignore[method-assign]

    shrink(world, 0)
    world.run(120)
    assert len(world.pods) == 1

    del world.seen_version
    world.run(20)
    assert not world.pods


def test_no_pod_goes_while_a_busy_one_is_not_ready_since_that_would_go_first() -> None:
    world = serving(3)
    world.enqueue(1, 100)
    world.step(1)
    (busy,) = [pod for pod in world.pods.values() if pod.running]
    busy.starts = world.time + 60  # its probe fails for a minute; the job goes on

    shrink(world, 1)
    world.run(50)
    assert len(world.pods) == 3

    world.run(40)
    assert list(world.pods) == [busy.name]
    assert world.handed_back == 0
