"""Pods are only ordered while the database has connections for them, and nobody spends the same ones twice."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forge_jobs import WorkerInfo
from forge_operator.plan import actions as act
from forge_operator.plan.budget import Orders, ordered, processes, starting
from forge_operator.state.observed import Cluster, Deployment, Pod
from forge_operator.state.settings import OperatorSettings
from tests.world import World, autoscaled, template, workers

EACH = OperatorSettings().connections_per_worker
PROGRESSIVE = {"strategy": "Progressive", "steps": [{"weightPercent": 20, "pauseSeconds": 60}]}


def worker(pod: str, pool: str = "a") -> WorkerInfo:
    return WorkerInfo(1, pod, "h", 1, "1", ("mail",), (), 10, pool=pool, version_id="v", pod=pod)


def cluster(replicas: int, *pods: Pod, **said: Any) -> Cluster:
    deployment = Deployment(name="web", uid="u", version_id="v", replicas=replicas, **said)
    return Cluster(deployments=(deployment,), pods=pods)


def pod(name: str, **said: Any) -> Pod:
    return Pod(name=name, uid=name, version_id="v", **said)


# --- who is starting ---


def test_a_pod_is_starting_from_when_it_is_ordered_until_its_worker_is_known() -> None:
    assert starting(cluster(3), ()) == 3
    assert starting(cluster(3, pod("p-1"), pod("p-2")), ()) == 3
    assert starting(cluster(3, pod("p-1"), pod("p-2")), [worker("p-1"), worker("p-2")]) == 1
    assert starting(cluster(2, pod("p-1"), pod("p-2")), [worker("p-1"), worker("p-2")]) == 0


def test_a_pod_on_its_way_out_opens_nothing_more() -> None:
    going = cluster(1, pod("p-1", deleting=True), pod("p-2"))

    assert starting(going, [worker("p-1")]) == 1, "its worker does not stand for the new pod's"
    assert starting(cluster(2, deleting=True), ()) == 0


def test_a_pod_with_several_processes_is_several_workers() -> None:
    assert starting(cluster(2, processes=4), ()) == 8


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, 1),
        ({"args": ["worker"]}, 1),
        ({"args": ["worker", "--processes", "4"]}, 4),
        ({"command": ["forge-jobs", "worker"], "args": ["--processes=3", "shop:forge"]}, 3),
        ({"args": ["worker", "--processes"]}, 1),
        ({"args": ["worker", "--processes=many"]}, 1),
        ({"args": ["worker", "--processes=0"]}, 1),
    ],
)
def test_processes_are_as_the_command_says(said: dict[str, Sequence[str]], expected: int) -> None:
    assert processes({"spec": {"containers": [{"name": "worker", "image": "i", **said}]}}) == expected


def test_what_a_plan_orders_counts_before_the_api_server_has_it() -> None:
    manifest = {"metadata": {"labels": {"forge-jobs.dev/version-id": "w"}}, "spec": {"template": template()}}
    actions: list[act.Action] = [
        act.Scale("shop", "web", 5, "Throughput", 2),
        act.ApplyDeployment("shop", "new", manifest, "hash"),
        act.Scale("shop", "new", 3, "Created"),
    ]

    assert starting(ordered(cluster(2), actions), ()) == 5 + 3
    gone = [act.DeleteDeployment("shop", "web", "u")]
    assert starting(ordered(cluster(2), gone), ()) == 0


def test_orders_of_other_pools_count_until_their_workers_are_known() -> None:
    orders = Orders()
    orders.note("a", cluster(3, pod("p-1")))

    assert orders.starting_elsewhere("a", {}, ()) == 0
    assert orders.starting_elsewhere("b", {}, [worker("p-1", "a")]) == 2
    assert orders.starting_elsewhere("b", {}, [worker("p-1", "c")]) == 3
    orders.forget("a")
    assert orders.starting_elsewhere("b", {}, ()) == 0


def test_a_pool_that_was_not_looked_at_yet_counts_as_it_was_seen() -> None:
    orders = Orders()
    seen = {"a": cluster(3), "b": cluster(4)}

    assert orders.starting_elsewhere("b", seen, ()) == 3
    orders.note("a", cluster(1))
    assert orders.starting_elsewhere("b", seen, ()) == 1


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["note", "forget", "see", "connect"]), st.sampled_from("abc"), st.integers(0, 4)
    ),
    max_size=20,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_what_is_added_up_once_is_what_adding_all_up_each_time_gives(
    steps: list[tuple[str, str, int]],
) -> None:
    orders = Orders()
    noted: dict[str, Cluster] = {}
    seen: dict[str, Cluster] = {}
    known: tuple[WorkerInfo, ...] = ()
    for step, pool, number in steps:
        found = cluster(number, *(pod(f"{pool}-{index}") for index in range(number)))
        match step:
            case "note":
                noted[pool] = found
                orders.note(pool, found)
            case "forget":
                noted.pop(pool, None)
                orders.forget(pool)
            case "see":
                seen = {**seen, pool: found}
            case _:
                known = (*known, *(worker(f"{pool}-{index}", pool) for index in range(number)))
        for uid in "abc":
            expected = sum(
                starting(each, [one for one in known if one.pool == other])
                for other, each in {**seen, **noted}.items()
                if other != uid
            )
            assert orders.starting_elsewhere(uid, seen, known) == expected


# --- scaling ---


@pytest.mark.parametrize("pod_start", [1.0, 60.0])
def test_a_pool_stops_at_what_fits_and_goes_on_when_there_is_more(pod_start: float) -> None:
    world = World({"workers": autoscaled()}, pod_start=pod_start)
    world.most_connections = EACH * 4 + 2
    world.enqueue(5000, 10)

    world.run(300)
    assert world.most_pods == 4
    assert world.condition("ScalingLimited") == ("True", "DatabaseConnectionBudget")
    assert (
        world.message("ScalingLimited") == f"A pod opens up to {EACH} connections, the database has 2 left."
    )
    assert world.status["scaling"]["inputs"]["connectionsLeft"] == 2

    world.most_connections = EACH * 7
    world.run(300)
    assert world.most_pods == 7


def test_what_other_pools_start_is_not_spent() -> None:
    world = World({"workers": autoscaled()})
    world.most_connections, world.starting_elsewhere = EACH * 6, 4
    world.enqueue(5000, 10)

    world.run(60)

    assert world.most_pods == 2
    assert f"({EACH * 4} are set aside for pods that start)" in world.message("ScalingLimited")


def test_pods_of_four_processes_need_four_times_as_much() -> None:
    world = World({"workers": autoscaled(template=many(4))})
    world.most_connections = EACH * 11
    world.enqueue(5000, 10)

    world.run(200)

    assert world.most_pods == 2
    assert f"A pod opens up to {EACH * 4} connections" in world.message("ScalingLimited")


def many(count: int) -> dict[str, Any]:
    worker = {"name": "worker", "image": "shop:1", "args": ["worker", f"--processes={count}"]}
    return {"spec": {"containers": [worker]}}


@pytest.mark.parametrize("left", [0, 1, None])
def test_no_number_however_small_takes_a_pod_away(left: int | None) -> None:
    world = World({"workers": autoscaled()})
    world.enqueue(5000, 10)
    world.run(120)
    before = world.deployment("1").replicas
    assert before > 2

    world.connections_left = left
    world.run(60)

    assert world.deployment("1").replicas >= before
    if left is not None:
        assert world.deployment("1").replicas == before


def test_pods_that_have_just_been_ordered_stay_though_they_used_up_what_was_left() -> None:
    world = World({"workers": autoscaled()}, pod_start=30)
    world.most_connections = EACH * 3
    world.enqueue(5000, 10)
    world.look()
    assert world.deployment("1").replicas == 3
    assert world.states() == {"1": "pending"}

    for _ in range(100):
        world.run(5)
        assert world.deployment("1").replicas == 3


def test_connections_that_are_not_counted_bound_nothing() -> None:
    world = World({"workers": autoscaled()}, settings=OperatorSettings(connections_per_worker=0))
    world.connections_left = 0
    world.enqueue(5000, 10)

    world.run(200)
    world.change(workers=autoscaled("2"))
    world.run(60)

    assert world.most_pods > 4
    assert world.states()["2"] == "current"
    assert "connectionsLeft" not in world.status["scaling"]["inputs"]


# --- rollouts ---


def serving(pods: int, connections: int, **said: Any) -> World:
    world = World({"workers": workers(replicas=pods, **said)}).run(60)
    world.most_connections = connections
    return world


def test_a_new_version_waits_until_all_its_pods_can_connect() -> None:
    world = serving(2, EACH * 4 - 1)
    world.change(workers=workers("2"))

    world.run(60)
    assert world.states() == {"1": "current"}
    assert world.condition("Progressing") == ("False", "DatabaseConnectionBudget")
    assert world.message("Progressing") == (
        f"Version 2 waits: 2 more pods open up to {EACH * 2} connections, "
        f"the database has {EACH * 2 - 1} left."
    )
    assert world.said().count("DatabaseConnectionBudget") == 1

    world.most_connections = EACH * 4
    world.run(60)
    assert world.states()["2"] == "current"
    assert world.most_pods == 4


def test_pods_on_their_way_out_still_hold_their_connections() -> None:
    world = serving(2, EACH * 6 - 1)
    world.enqueue(4, 60)
    world.run(5)
    for each in list(world.pods.values()):
        each.deleting = world.time
    world.run(20)
    assert world.connections() == EACH * 4, "two that finish their jobs, and two in their place"

    world.change(workers=workers("2"))
    world.run(10)
    assert world.condition("Progressing") == ("False", "DatabaseConnectionBudget")

    world.run(90)
    assert world.states()["2"] == "current"


def test_a_progressive_rollout_needs_room_for_its_first_step() -> None:
    world = serving(10, EACH * 12)
    world.change(workers=workers("2", replicas=10, rollout=PROGRESSIVE))

    world.run(30)

    assert world.states()["2"] == "ramping"


def test_a_version_that_is_not_asked_for_any_more_makes_room_for_the_next() -> None:
    world = serving(2, EACH * 4)
    world.change(workers=workers("2"))
    world.look()
    world.broken.add(world.version("2").id)
    world.pods = {name: pod for name, pod in world.pods.items() if pod.version_id not in world.broken}
    world.run(10)
    world.broken.clear()

    world.change(workers=workers("3"))
    world.run(60)

    assert world.states()["3"] == "current"
    assert world.connections() <= EACH * 4


def test_a_version_that_comes_up_grows_with_the_load_only_as_far_as_both_can() -> None:
    world = World({"workers": autoscaled()}, pod_start=30).run(60, step=5)
    world.most_connections = EACH * 6
    world.enqueue(20, 400)
    world.run(60)
    world.change(workers=autoscaled("2"))
    world.run(10)
    world.enqueue(5000, 400)

    for _ in range(100):
        world.run(5)
        ordered = sum(each.replicas for each in world.deployments.values())
        going = sum(1 for each in world.pods.values() if each.deleting is not None)
        assert ordered + going <= 6


def test_the_way_back_to_pods_that_are_still_warm_needs_no_connections() -> None:
    world = serving(2, EACH * 4)
    world.change(workers=workers("2"))
    world.run(60)
    assert world.states() == {"1": "drained", "2": "current"}
    world.most_connections = 0

    world.change(workers=workers("1"))
    world.look()

    assert world.states()["1"] == "current"


def test_the_way_back_to_a_version_without_pods_waits_like_a_new_one() -> None:
    world = serving(2, EACH * 4)
    world.change(workers=workers("2"))
    world.run(300)
    assert world.deployment("1").replicas == 0
    world.most_connections = EACH * 3

    world.change(workers=workers("1"))
    world.run(30)
    assert world.states()["2"] == "current"
    assert world.condition("Progressing") == ("False", "DatabaseConnectionBudget")

    world.most_connections = EACH * 4
    world.run(60)
    assert world.states()["1"] == "current"


def test_a_pool_that_nobody_serves_is_not_held_up() -> None:
    world = World()
    world.connections_left = 0

    world.run(60)

    assert world.states() == {"1": "current"}
