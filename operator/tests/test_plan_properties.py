"""Whatever people, clusters and databases do: what must never happen does not, and calm brings quiet."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forge_jobs.model import VersionState
from forge_operator.plan import actions as act
from forge_operator.plan.pool import ACTIVE
from forge_operator.state.memory import Memory
from forge_operator.state.observed import Unknown
from forge_operator.state.settings import OperatorSettings
from tests.world import World, autoscaled, template, workers

VERSIONS = ("1", "2", "3")
AWAY = Unknown("ConnectionFailed", "The database cannot be reached.")
DEAF = Unknown("ApiUnreachable", "The API server cannot be reached.")
TAKES_AWAY = (
    act.DeleteDeployment,
    act.DeleteVersion,
    act.DeletePod,
    act.MoveVersion,
    act.Promote,
    act.CordonWorkers,
)

ROLLOUTS: tuple[dict[str, Any], ...] = (
    {},
    {"strategy": "Manual"},
    {"strategy": "Progressive", "steps": [{"weightPercent": 20, "pauseSeconds": 30}]},
    {"maxActiveVersions": 2},
)

events = st.one_of(
    st.tuples(st.just("version"), st.sampled_from(VERSIONS)),
    st.tuples(st.just("template"), st.sampled_from(("a", "b"))),
    st.tuples(st.just("replicas"), st.integers(0, 5)),
    st.tuples(st.just("enqueue"), st.integers(1, 30)),
    st.tuples(st.just("long job"), st.just(400)),
    st.tuples(st.just("pass"), st.sampled_from((1, 7, 30, 150))),
    st.tuples(st.just("database away"), st.sampled_from((1, 40))),
    st.tuples(st.just("cluster away"), st.sampled_from((1, 40))),
    st.tuples(st.just("restart"), st.none()),
    st.tuples(st.just("kill pod"), st.integers(0, 9)),
    st.tuples(st.just("delete deployment"), st.integers(0, 3)),
    st.tuples(st.just("break"), st.sampled_from(VERSIONS)),
    st.tuples(st.just("promote by hand"), st.none()),
    st.tuples(st.just("pause"), st.booleans()),
    st.tuples(st.just("refuse"), st.booleans()),
)


def happen(world: World, said: dict, name: str, value: object) -> None:  # type: ignore[type-arg]
    match name, value:
        case "version", str(version):
            said["version"] = version
            world.change(workers=dict(said))
        case "template", str(image):
            containers = [{"name": "worker", "image": f"shop:{image}"}]
            said["template"] = template(spec={"containers": containers})
            world.change(workers=dict(said))
        case "replicas", int(count) if "replicas" in said:
            said["replicas"] = count
            world.change(workers=dict(said))
        case "enqueue", int(count):
            world.enqueue(count, 3)
        case "long job", int(length):
            world.enqueue(1, length)
        case "pass", int(length):
            run(world, length)
        case "database away", int(length):
            world.database_error = AWAY
            run(world, length)
            world.database_error = None
        case "cluster away", int(length):
            world.cluster_error = DEAF
            run(world, length)
            world.cluster_error = None
        case "restart", _:
            world.memory = Memory()
        case "kill pod", int(number) if world.pods:
            pod = sorted(world.pods)[number % len(world.pods)]
            world.pending += world.pods[pod].running
            del world.pods[pod]
        case "delete deployment", int(number) if world.deployments:
            name = sorted(world.deployments)[number % len(world.deployments)]
            version = world.deployments[name].version_id
            del world.deployments[name]
            for running in world.alive(version):
                running.deleting = world.time
        case "break", str(version):
            world.broken |= {each.id for each in world.versions.values() if each.version == version}
        case "promote by hand", _:
            waiting = [each.id for each in world.versions.values() if each.state is VersionState.PENDING]
            world.annotations = {"forge-jobs.dev/promote": waiting[0]} if waiting else {}
        case "pause", bool(is_paused):
            world.change(paused=is_paused)
        case "refuse", bool(is_refused):
            world.refusal = "that is not valid" if is_refused else None


def run(world: World, seconds: int) -> None:
    most = (world.spec["workers"].get("rollout") or {}).get("maxActiveVersions", 4)
    for _ in range(seconds):
        if world.time % 5 == 0:
            checked_look(world, most)
        world.step(1)


def checked_look(world: World, most: int) -> None:
    before = {name: each.replicas for name, each in world.deployments.items()}
    done = world.look()
    if world.database_error or world.cluster_error:
        assert not [each for each in done if isinstance(each, TAKES_AWAY)]
        scales = [each for each in done if isinstance(each, act.Scale)]
        assert all(each.replicas >= before[each.name] for each in scales)
    assert sum(1 for each in world.versions.values() if each.state in ACTIVE) <= most
    assert len(set(map(repr, done))) == len(done), "one plan says the same thing twice"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    is_scaled=st.booleans(),
    rollout=st.sampled_from(ROLLOUTS),
    honours=st.booleans(),
    story=st.lists(events, max_size=14),
)
def test_no_story_breaks_a_promise_and_every_story_comes_to_rest(
    is_scaled: bool, rollout: dict[str, object], honours: bool, story: list[tuple[str, object]]
) -> None:
    said = (autoscaled if is_scaled else workers)(rollout=rollout)
    world = World({"workers": dict(said)}, settings=OperatorSettings(honours_deletion_cost=honours))

    for name, value in story:
        happen(world, said, name, value)
        run(world, 5)
    world.broken.clear()
    world.refusal = None
    world.pods = {name: pod for name, pod in world.pods.items() if pod.starts != float("inf")}
    world.change(paused=False)
    said["rollout"] = {}
    world.change(workers=dict(said))
    world.run(1500, every=10, step=5)

    (current,) = world.current()
    assert current.version == said["version"]
    assert current.id == world.status["targetVersion"]["id"]
    assert not world.pending or said.get("replicas") == 0
    if "delete deployment" not in dict(story):
        assert not world.handed_back, "a running job was stopped"
    assert world.settle() <= 1


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(story=st.lists(events, max_size=8), is_scaled=st.booleans())
def test_a_plan_that_was_carried_out_leaves_nothing_to_do(
    story: list[tuple[str, object]], is_scaled: bool
) -> None:
    said = (autoscaled if is_scaled else workers)()
    world = World({"workers": dict(said)})
    for name, value in story:
        happen(world, said, name, value)

    world.settle()  # no time passes, so nothing but the operator's own doing is new

    assert world.look() == ()
