"""How an old version ends."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from forge_jobs.model import VersionState
from forge_operator.plan import actions as act
from forge_operator.plan.queue import plan
from forge_operator.plan.rollout.emptiness import evidence, is_proven_empty
from forge_operator.state.memory import Memory
from forge_operator.state.observed import Cluster, Deployment, Unknown
from tests.world import START, World, workers

LATER = START + timedelta(seconds=10)


def draining(seconds: float, *, jobs: int = 2, **said: Any) -> World:
    """A pool whose version 1 drains and still runs jobs of this length."""
    world = World({"workers": workers(**said)}).run(60)
    world.enqueue(jobs, seconds)
    world.run(5)
    world.change(workers=workers("2", **said))
    world.run(25)
    assert world.states() == {"1": "draining", "2": "current"}
    return world


def closed(world: World, **said: Any) -> Any:
    """The draining version as one look sees it."""
    version = world.seen_version(world.version("1"))
    return replace(version, **({"acknowledged": True, "in_progress": 0} | said))


def looks(*versions: Any, apart: timedelta = timedelta(seconds=10)) -> bool:
    """Whether looks that see this, one after the other, prove the version empty."""
    memory, now = Memory(), START
    for version in versions:
        proven = is_proven_empty(version, memory, now)
        memory = Memory(empty=evidence([version], memory, now))
        now += apart
    return proven


def test_one_look_proves_nothing() -> None:
    assert not looks(closed(draining(100)))


def test_two_looks_ten_seconds_apart_prove_a_version_empty() -> None:
    empty = closed(draining(100))

    assert looks(empty, empty)


def test_two_looks_that_are_too_close_prove_nothing() -> None:
    empty = closed(draining(100))

    assert not looks(empty, empty, apart=timedelta(seconds=9))


@pytest.mark.parametrize(
    "said",
    (
        {"in_progress": 1},
        {"acknowledged": False},
        {"state": VersionState.CURRENT},
        {"state": VersionState.RAMPING},
    ),
)
def test_a_look_between_that_does_not_find_it_empty_begins_anew(said: dict[str, Any]) -> None:
    world = draining(100)
    empty, other = closed(world), closed(world, **said)

    assert not looks(empty, other)
    assert not looks(empty, other, empty)
    assert looks(empty, other, empty, empty)


def test_a_gate_that_was_opened_and_closed_between_two_looks_begins_anew() -> None:
    empty = closed(draining(100))

    assert not looks(empty, replace(empty, control_revision=empty.control_revision + 2))


def test_jobs_of_an_old_version_finish_however_long_they_take() -> None:
    world = draining(7200)

    world.run(7000, every=20, step=5)
    assert world.states()["1"] == "draining"
    assert world.condition("Progressing") == ("True", "Draining")

    world.run(400)
    assert world.states()["1"] == "drained"
    assert world.done == 2
    assert world.handed_back == 0


def test_idle_pods_of_a_draining_version_go_early_and_the_last_one_stays() -> None:
    world = draining(300, jobs=1, replicas=4)
    world.run(60)

    assert world.deployment("1").replicas == 1
    assert world.held(world.version("1").id) == 1
    assert world.handed_back == 0


def test_idle_pods_stay_when_the_object_says_so() -> None:
    world = draining(300, jobs=1, replicas=4, drain={"shrinkIdle": False})
    world.run(60)

    assert world.deployment("1").replicas == 4


def test_a_drained_version_keeps_its_pods_for_a_while_then_its_deployment_then_its_row() -> None:
    world = draining(30, jobs=1, sunset={"scaleDownDelaySeconds": 100, "deleteDelaySeconds": 1000})
    world.run(40)
    assert world.states()["1"] == "drained"

    world.run(60)
    assert world.deployment("1").replicas == 1

    world.run(60)
    assert world.deployment("1").replicas == 0

    world.run(900)
    assert world.version("1").deployment in world.deployments

    world.run(200)
    assert world.states()["1"] == "retired"
    assert world.version("1").deployment not in world.deployments


def test_only_the_last_versions_are_remembered() -> None:
    said: dict[str, Any] = {
        "sunset": {"scaleDownDelaySeconds": 0, "deleteDelaySeconds": 0, "historyLimit": 2}
    }
    world = World({"workers": workers(**said)}).run(30)
    for version in "23456":
        world.change(workers=workers(version, **said))
        world.run(60)

    assert world.states() == {"4": "retired", "5": "retired", "6": "current"}


def test_a_row_stays_while_a_pod_of_its_version_may_still_claim() -> None:
    world = draining(100, sunset={"scaleDownDelaySeconds": 0, "deleteDelaySeconds": 0, "historyLimit": 0})
    straggler = replace_pod(world)
    world.run(400)

    assert "1" in world.states()
    del world.pods[straggler]
    world.run(10)
    assert "1" not in world.states()


def replace_pod(world: World) -> str:
    """A pod of version 1 that no controller knows of any more, as on a node that was cut off."""
    pod = replace(
        world.of(world.version("1").id)[0], name="straggler", running=[], worker=next(world.numbers)
    )
    world.pods[pod.name] = pod
    world.stop = lambda pod: None if pod.name == "straggler" else World.stop(world, pod)  # type: ignore[method-assign]
    return pod.name


def test_a_drain_that_takes_too_long_is_said_and_nothing_else() -> None:
    world = draining(3000, drain={"timeoutSeconds": 60})
    world.run(200)

    assert world.condition("Progressing") == ("True", "DrainOverdue")
    assert world.states()["1"] == "draining"
    assert world.handed_back == 0


def test_a_drain_that_takes_too_long_is_ended_if_people_asked_for_that() -> None:
    world = draining(3000, drain={"timeoutSeconds": 60, "onTimeout": "Terminate"})
    world.run(300)

    assert world.deployment("1").replicas == 0
    assert world.handed_back == 2
    assert "DrainTimeout" in world.said()
    assert world.states()["1"] == "drained"


def test_deployments_without_their_labels_are_known_by_their_names() -> None:
    world = draining(seconds=100)
    seen = world.observe()
    assert isinstance(seen.cluster, Cluster)
    bare = tuple(replace(each, version_id="") for each in seen.cluster.deployments)

    done = plan(replace(seen, cluster=replace(seen.cluster, deployments=bare))).actions

    (applied, reclaimed) = [each for each in done if not isinstance(each, act.WriteStatus)]
    assert isinstance(applied, act.ApplyDeployment), "which brings the label back"
    assert applied.name == world.version("2").deployment
    assert isinstance(reclaimed, act.ReclaimDeployment), "which changes nothing else of what drains"
    assert reclaimed.name == world.version("1").deployment


def test_a_deployment_that_is_no_versions_own_is_let_be() -> None:
    world = draining(seconds=100)
    seen = world.observe()
    assert isinstance(seen.cluster, Cluster)
    stray = Deployment(name="stray", uid="uid-stray", version_id="")
    copy = replace(seen.cluster.deployments[0], name="copy", replicas=9)

    cluster = replace(seen.cluster, deployments=(*seen.cluster.deployments, stray, copy))
    done = plan(replace(seen, cluster=cluster)).actions

    assert [each for each in done if not isinstance(each, act.WriteStatus)] == []


@pytest.mark.parametrize("away", ("database", "cluster"))
def test_an_outage_is_no_evidence_that_a_version_is_empty(away: str) -> None:
    world = draining(20)
    unknown = Unknown("ConnectionFailed", "It cannot be reached.")
    if away == "database":
        world.database_error = unknown
    else:
        world.cluster_error = unknown
    before = len(world.actions)

    world.run(600)

    kinds = {type(each) for each in world.actions[before:]}
    assert kinds <= {act.WriteStatus, act.EmitEvent}
    assert world.states()["1"] == "draining"

    world.database_error = world.cluster_error = None
    world.look()
    assert world.states()["1"] == "draining", "one look after an outage proves nothing"
    world.run(40)
    assert world.states()["1"] == "drained"


def test_a_deployment_of_a_retired_version_stays_while_somebody_holds_a_job_of_it() -> None:
    world = draining(100)
    version = world.version("1")
    world.versions[version.id] = replace(version, state=VersionState.RETIRED)

    world.run(30)
    assert version.deployment in world.deployments

    world.run(120)
    assert version.deployment not in world.deployments
    assert world.handed_back == 0


def test_a_row_stays_while_a_worker_of_its_version_is_registered() -> None:
    world = draining(30, sunset={"scaleDownDelaySeconds": 0, "deleteDelaySeconds": 0, "historyLimit": 0})
    first, seen = world.version("1").id, World.seen_version
    world.seen_version = lambda version: replace(  # type: ignore[method-assign]
        found := seen(world, version), workers=1 if version.id == first else found.workers
    )

    world.run(200)

    assert world.states()["1"] == "retired"
