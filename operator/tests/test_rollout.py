"""How a new version takes over."""

from dataclasses import replace
from typing import Any

import pytest

from forge_jobs.model import VersionState
from forge_operator import naming
from forge_operator.plan import actions as act
from forge_operator.plan.queue import plan
from forge_operator.state.memory import Memory
from tests.world import World, autoscaled, template, workers

PROGRESSIVE = {
    "strategy": "Progressive",
    "steps": [{"weightPercent": 20, "pauseSeconds": 60}, {"weightPercent": 50, "pauseSeconds": 60}],
}


def serving(**said: Any) -> World:
    """A pool whose version 1 serves."""
    world = World({"workers": workers(**said)}).run(60)
    assert world.states() == {"1": "current"}
    return world


def test_the_first_version_is_promoted_when_its_pods_are_ready() -> None:
    world = World()

    world.run(8)
    assert world.states() == {"1": "pending"}

    world.run(20)
    assert world.states() == {"1": "current"}
    assert world.deployment("1").replicas == 2
    assert world.condition("Progressing") == ("True", "RolloutComplete")
    assert world.condition("Ready") == ("True", "Serving")


def test_a_versions_row_is_there_before_its_pods_so_that_its_gate_is_closed() -> None:
    world = World()

    world.look()

    kinds = [type(each) for each in world.actions]
    assert kinds.index(act.PutVersion) < kinds.index(act.ApplyDeployment)


def test_a_manifest_is_tried_before_anything_of_its_version_is_written() -> None:
    world = World()

    world.look()

    (tried,) = [each for each in world.actions if isinstance(each, act.TryDeployment)]
    (applied,) = [each for each in world.actions if isinstance(each, act.ApplyDeployment)]
    assert (tried.name, tried.manifest) == (applied.name, applied.manifest)
    kinds = [type(each) for each in world.actions]
    assert kinds.index(act.TryDeployment) < kinds.index(act.PutVersion)


def test_the_old_version_serves_until_all_pods_of_the_new_one_are_ready() -> None:
    world = serving(replicas=4)
    world.pod_start = 30

    world.change(workers=workers("2", replicas=4))
    world.run(30)

    assert world.states() == {"1": "current", "2": "pending"}
    assert world.deployment("2").replicas == 4

    world.run(15)
    assert world.states() == {"1": "draining", "2": "current"}


def test_a_rollout_under_load_stops_no_job() -> None:
    world = serving(replicas=3, slots=4)
    for _ in range(120):
        world.enqueue(1, 60)
        world.run(2)
        if world.time == 100:
            world.change(workers=workers("2", replicas=3, slots=4))

    world.run(2000)

    assert world.states()["2"] == "current"
    assert world.done == 120
    assert world.handed_back == 0


def test_a_first_version_that_never_gets_ready_is_warned_of_once() -> None:
    world = World({"workers": workers()}, pod_start=float("inf"))
    world.run(700)

    assert world.condition("Progressing") == ("False", "ProgressDeadlineExceeded")
    assert [each.type for each in world.events if each.reason == "ProgressDeadlineExceeded"] == ["Warning"]


def test_a_version_that_never_gets_ready_costs_one_pod_and_the_old_one_goes_on() -> None:
    world = serving(replicas=4)
    world.change(workers=workers("2", replicas=4))
    world.look()
    world.broken.add(world.version("2").id)
    world.pods = {name: pod for name, pod in world.pods.items() if pod.version_id not in world.broken}

    world.run(700)

    assert world.states() == {"1": "current", "2": "failed"}
    assert world.deployment("2").replicas == 1
    assert world.condition("Progressing") == ("False", "ProgressDeadlineExceeded")
    assert "ImagePullBackOff" in world.status["conditions"][3]["message"]
    assert world.condition("Ready") == ("False", "ProgressDeadlineExceeded")


def test_a_version_that_was_late_takes_over_when_its_pod_is_ready_after_all() -> None:
    world = serving()
    world.change(workers=workers("2"))
    world.look()
    world.broken.add(world.version("2").id)
    world.pods = {name: pod for name, pod in world.pods.items() if pod.version_id not in world.broken}
    world.run(700)

    for pod in world.of(world.version("2").id):
        pod.starts = world.time
    world.broken.clear()
    world.run(60)

    assert world.states()["2"] == "current"


def test_a_cluster_without_room_for_all_pods_still_gets_its_new_version() -> None:
    world = serving(replicas=3)
    world.change(workers=workers("2", replicas=3))
    world.look()
    (first, *others) = world.of(world.version("2").id)
    for pod in others:
        pod.starts = float("inf")

    world.run(180)

    assert first.worker is not None
    assert world.states()["2"] == "current"


def test_of_five_commits_in_a_row_only_the_newest_is_built() -> None:
    world = serving()

    for version in "23456":
        world.change(workers=workers(version))
        world.look()
        world.look()

    assert [each.version_id for each in world.deployments.values()] == [
        world.version("1").id,
        world.version("6").id,
    ]
    world.run(60)
    assert world.states()["6"] == "current"


def test_no_more_versions_have_workers_than_allowed() -> None:
    world = serving(rollout={"maxActiveVersions": 2})
    world.enqueue(4, 10_000)
    world.run(10)
    world.change(workers=workers("2", rollout={"maxActiveVersions": 2}))
    world.run(60)

    world.change(workers=workers("3", rollout={"maxActiveVersions": 2}))
    world.run(60)

    assert world.states() == {"1": "draining", "2": "current"}
    assert world.condition("Progressing") == ("False", "TooManyVersions")

    world.run(11_000, every=60, step=30)
    assert world.states()["3"] == "current"


def test_setting_the_version_back_finds_the_pods_still_warm() -> None:
    world = serving()
    world.change(workers=workers("2"))
    world.run(60)
    assert world.states() == {"1": "drained", "2": "current"}

    world.change(workers=workers("1"))
    world.look()

    assert world.states()["1"] == "current"
    assert world.states()["2"] == "draining"
    assert "RolledBack" in world.said()


def test_a_retired_version_comes_back_with_a_new_deployment() -> None:
    world = serving()
    world.change(workers=workers("2"))
    world.run(4000, every=20, step=5)
    assert world.states() == {"1": "retired", "2": "current"}

    world.change(workers=workers("1"))
    world.run(60)

    assert world.states()["1"] == "current"
    assert world.deployment("1").replicas == 2


def test_a_changed_template_is_rolled_out_beside_the_present_pods() -> None:
    world = serving()
    first = set(world.deployments)

    world.change(workers=workers(template=template(metadata={"labels": {"team": "shop"}})))
    world.look()

    assert len(world.deployments) == 2
    assert first < set(world.deployments)


def test_with_identity_version_a_changed_template_is_applied_in_place() -> None:
    world = serving(identity="Version")

    world.change(
        workers=workers(identity="Version", template=template(metadata={"labels": {"team": "shop"}}))
    )
    done = world.look()

    assert [type(each) for each in done if not isinstance(each, act.WriteStatus)] == [act.ApplyDeployment]
    assert len(world.deployments) == 1
    world.settle()


def test_what_is_tuned_live_restarts_nothing() -> None:
    world = serving()

    world.change(
        concurrency={"limit": 3},
        backoff={"baseSeconds": 1, "maxSeconds": 5},
        paused=True,
        maxAttempts=9,
        workers=workers(replicas=2, rollout={"strategy": "Manual"}, sunset={"historyLimit": 0}),
    )
    done = world.look()

    assert {type(each) for each in done} <= {act.SetQueue, act.WriteStatus}
    assert world.queues["mail"].concurrency == 3


# --- progressive ---


def test_a_progressive_rollout_goes_by_its_steps() -> None:
    world = serving(replicas=10)
    world.arrivals = 4
    world.change(workers=workers("2", replicas=10, rollout=PROGRESSIVE))
    world.run(30)

    assert world.states() == {"1": "current", "2": "ramping"}
    assert (world.deployment("1").replicas, world.deployment("2").replicas) == (8, 2)
    assert world.condition("Progressing") == ("True", "Ramping")

    world.run(70)
    assert world.version("2").weight_percent == 50
    assert (world.deployment("1").replicas, world.deployment("2").replicas) == (5, 5)

    world.run(70)
    assert world.states()["2"] == "current"
    world.run(30)
    assert world.deployment("2").replicas == 10


def test_a_version_that_had_a_share_gets_all_its_pods_before_it_serves_alone() -> None:
    world = serving(replicas=10)
    world.arrivals = 12
    step = {"weightPercent": 20, "pauseSeconds": 30}
    world.change(workers=workers("2", replicas=10, rollout={"strategy": "Progressive", "steps": [step]}))

    fewest = 10
    for _ in range(150):
        world.run(1, every=1)
        serving_pods = [each.ready for each in world.cluster().deployments if world.is_open(each)]
        fewest = min(fewest, sum(serving_pods))

    assert world.states()["2"] == "current"
    assert world.deployment("2").replicas == 10
    assert fewest >= 9


def test_a_pool_whose_autoscaler_only_observes_keeps_its_pods_through_a_rollout() -> None:
    world = World({"workers": autoscaled()}).run(60)
    world.annotations = {"forge-jobs.dev/autoscaling": "observe"}
    name = world.version("1").deployment
    world.deployments[name] = replace(world.deployments[name], replicas=6)
    world.run(60)

    world.most_pods, world.arrivals = 0, 4
    world.change(workers=autoscaled("2", rollout=PROGRESSIVE))
    world.run(300)

    assert world.states()["2"] == "current"
    assert world.deployment("2").replicas == 6
    assert world.most_pods <= 12


def test_the_first_version_needs_no_steps_and_nobodys_word() -> None:
    for rollout in (PROGRESSIVE, {"strategy": "Manual"}):
        assert World({"workers": workers(rollout=rollout)}).run(60).states() == {"1": "current"}


@pytest.mark.parametrize("rollout", [PROGRESSIVE, {"strategy": "Manual"}])
def test_nor_does_one_before_which_workers_were_taken_away(rollout: dict[str, Any]) -> None:
    world = serving(replicas=5)
    world.spec = {}
    world.run(300)
    assert not world.deployments

    world.change(workers=workers("2", replicas=5, rollout=rollout))
    world.run(60)

    assert world.states()["2"] == "current"
    assert world.deployment("2").replicas == 5


def test_connections_hold_up_no_version_before_which_workers_were_taken_away() -> None:
    world = serving(replicas=5)
    world.spec = {}
    world.run(300)

    world.connections_left = 4
    world.change(workers=workers("2", replicas=5))
    world.run(60)

    assert world.states()["2"] == "current"


@pytest.mark.parametrize("rollout", [PROGRESSIVE, {"strategy": "Manual"}])
def test_nor_does_one_whose_predecessor_was_deleted_by_hand(rollout: dict[str, Any]) -> None:
    world = serving(replicas=5)
    world.change(workers=workers("2", replicas=5, rollout=rollout))
    world.run(60)

    del world.deployments[world.version("1").deployment]
    for pod in world.alive(world.version("1").id):
        pod.deleting = world.time
    world.run(60)

    assert world.states()["2"] == "current"
    assert world.deployment("2").replicas == 5


def load(world: World, count: int) -> None:
    for _ in range(count):
        world.enqueue(4, 1)
        world.run(1, every=5)


def test_a_progressive_rollout_goes_back_when_the_new_version_fails() -> None:
    world = serving(replicas=4)
    load(world, 60)
    world.change(workers=workers("2", replicas=4, rollout=PROGRESSIVE))
    world.run(20)
    world.failing.add(world.version("2").id)

    load(world, 60)
    world.run(60)

    assert world.states() == {"1": "current", "2": "failed"}
    assert world.condition("Progressing") == ("False", "RolloutAborted")
    assert "RolloutAborted" in world.said()
    assert world.deployment("2").replicas == 0
    assert world.deployment("1").replicas == 4


def test_it_does_not_go_back_when_the_old_version_fails_as_often() -> None:
    world = serving(replicas=4)
    world.failing.add(world.version("1").id)
    load(world, 60)
    world.change(workers=workers("2", replicas=4, rollout=PROGRESSIVE))
    world.look()
    world.failing.add(world.version("2").id)

    load(world, 240)

    assert world.states()["2"] == "current"


def test_a_rollback_needs_no_steps_within_its_window() -> None:
    world = serving(replicas=4)
    world.change(workers=workers("2", replicas=4))
    world.run(30)

    world.change(workers=workers("1", replicas=4, rollout=PROGRESSIVE))
    world.look()

    assert world.states()["1"] == "current"


@pytest.mark.parametrize("percent", [20, 50])
def test_an_operator_that_starts_in_the_middle_of_a_step_does_not_repeat_its_pause(percent: int) -> None:
    world = serving(replicas=4)
    world.arrivals = 4
    world.change(workers=workers("2", replicas=4, rollout=PROGRESSIVE))
    world.look()
    while world.states()["2"] == "pending" or world.version("2").weight_percent < percent:
        world.run(1, every=1)

    world.run(40)
    world.memory = Memory()
    world.run(15)
    assert world.version("2").weight_percent == percent

    world.run(25)  # after the last step the other pods start before it serves alone
    assert world.version("2").weight_percent > percent


# --- by hand ---


def test_a_manual_rollout_waits_for_the_annotation() -> None:
    world = serving()
    world.change(workers=workers("2", rollout={"strategy": "Manual"}))
    world.run(300)

    assert world.states() == {"1": "current", "2": "pending"}
    assert world.condition("Progressing") == ("False", "AwaitingPromotion")
    assert world.condition("Ready") == ("True", "Serving"), (
        "people are waited for, and the old version serves"
    )

    world.annotations = {"forge-jobs.dev/promote": "zzzzzzzz"}
    world.look()
    assert world.states()["2"] == "pending"

    world.annotations = {"forge-jobs.dev/promote": world.version("2").id}
    world.look()
    assert world.states() == {"1": "draining", "2": "current"}


def test_a_progressive_rollout_that_becomes_a_manual_one_keeps_its_share() -> None:
    world = serving(replicas=5)
    world.change(workers=workers("2", replicas=5, rollout=PROGRESSIVE))
    world.run(30)

    world.change(workers=workers("2", replicas=5, rollout={"strategy": "Manual"}))
    world.run(300)

    assert world.states() == {"1": "current", "2": "ramping"}
    assert (world.deployment("1").replicas, world.deployment("2").replicas) == (4, 1)
    assert world.condition("Progressing") == ("False", "AwaitingPromotion")

    world.annotations = {"forge-jobs.dev/promote": world.version("2").id}
    world.run(10)
    assert world.states() == {"1": "draining", "2": "current"}


def test_a_version_with_a_share_takes_over_at_once_by_hand() -> None:
    world = serving(replicas=4)
    world.change(workers=workers("2", replicas=4, rollout=PROGRESSIVE))
    world.run(30)
    assert world.states() == {"1": "current", "2": "ramping"}

    world.annotations = {"forge-jobs.dev/promote": world.version("2").id}
    world.look()
    assert world.states() == {"1": "draining", "2": "current"}


def test_a_version_that_was_aborted_takes_over_by_hand() -> None:
    world = serving(replicas=4)
    load(world, 60)
    world.change(workers=workers("2", replicas=4, rollout=PROGRESSIVE))
    world.run(20)
    world.failing.add(world.version("2").id)
    load(world, 60)
    assert world.states() == {"1": "current", "2": "failed"}

    world.annotations = {"forge-jobs.dev/promote": world.version("2").id}
    world.run(60)
    assert world.states()["2"] == "current"


# --- mistakes ---


def test_a_template_with_a_variable_of_the_operator_starts_nothing() -> None:
    world = serving()
    env = [{"name": "FORGE_POOL_UID", "value": "mine"}]
    world.change(
        workers=workers("2", template={"spec": {"containers": [{"name": "w", "image": "i", "env": env}]}})
    )
    world.run(30)

    assert world.states() == {"1": "current"}
    assert world.condition("Progressing") == ("False", "InvalidTemplate")
    assert "InvalidTemplate" in world.said()


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"env": {"TZ": "UTC"}}, "containers[0].env is {'TZ': 'UTC'}, allowed is a list of objects."),
        ({"env": ["TZ=UTC"]}, "containers[0].env is ['TZ=UTC'], allowed is a list of objects."),
        ({"env": [None]}, "containers[0].env is [None], allowed is a list of objects."),
        ({"ports": [80]}, "containers[0].ports is [80], allowed is a list of objects."),
        ({"volumeMounts": "/x"}, "containers[0].volumeMounts is '/x', allowed is a list of objects."),
        (
            {"command": "forge-jobs worker"},
            "containers[0].command is 'forge-jobs worker', allowed is a list of texts.",
        ),
        ({"args": 5}, "containers[0].args is 5, allowed is a list of texts."),
        ({"securityContext": "root"}, "containers[0].securityContext is 'root', allowed is an object."),
    ],
)
def test_a_container_that_makes_no_sense_is_said_and_the_pool_goes_on(
    said: dict[str, Any], sentence: str
) -> None:
    world = serving(replicas=4)
    container = {"name": "worker", "image": "shop:2"} | said
    world.change(workers=workers("2", replicas=2, template={"spec": {"containers": [container]}}))
    world.run(60)

    assert world.states() == {"1": "current"}
    assert world.condition("Progressing") == ("False", "InvalidTemplate")
    assert world.status["conditions"][3]["message"] == f"spec.workers.template.spec.{sentence}"
    assert world.deployment("1").replicas == 2


@pytest.mark.parametrize(
    "said",
    [
        {"initContainers": {"name": "x"}},
        {"initContainers": ["x"]},
        {"securityContext": ["x"]},
        {"volumes": {"data": {}}},
    ],
)
def test_a_pod_that_makes_no_sense_is_said(said: dict[str, Any]) -> None:
    world = World({"workers": workers(template=template(spec=template()["spec"] | said))}).run(30)

    assert world.condition("Progressing") == ("False", "InvalidTemplate")
    assert not world.deployments


def test_what_a_template_says_nothing_of_may_be_null() -> None:
    container = {"name": "worker", "image": "shop:1", "env": None, "ports": None, "securityContext": None}
    spec = {"containers": [container], "initContainers": None, "terminationGracePeriodSeconds": None}

    world = World({"workers": workers(template={"metadata": None, "spec": spec})}).run(60)

    assert world.states() == {"1": "current"}


def test_a_template_that_the_api_server_refuses_is_said_and_tried_again_later() -> None:
    world = serving()
    world.change(workers=workers("2"))
    world.refusal = "spec.nodeName is wrong"

    assert world.settle() == 2  # it is refused, and it is said
    assert world.condition("Progressing") == ("False", "InvalidTemplate")
    assert "spec.nodeName is wrong" in world.status["conditions"][3]["message"]
    assert world.states() == {"1": "current"}
    assert len(world.deployments) == 1

    world.run(50)
    tries = [each for each in world.actions if isinstance(each, act.TryDeployment)]
    assert len(tries) == 1, "only the first version's"

    world.refusal = None
    world.run(30)
    assert "2" in world.states()


def test_an_id_that_is_taken_is_left_alone() -> None:
    world = serving()
    (version,) = world.versions.values()
    world.versions[version.id] = replace(version, spec_hash="0" * 64)
    before = len(world.actions)

    world.look()

    assert world.condition("Progressing") == ("False", "IdentityCollision")
    assert {type(each) for each in world.actions[before:]} <= {act.WriteStatus, act.EmitEvent}


def test_a_new_version_waits_when_the_database_has_no_connections_left() -> None:
    world = serving()
    world.connections_left = 2
    world.change(workers=workers("2"))
    world.run(30)

    assert world.states() == {"1": "current"}
    assert world.condition("Progressing") == ("False", "DatabaseConnectionBudget")


# --- what people and databases do beside it ---


def test_a_deployment_deleted_by_hand_is_made_again() -> None:
    world = serving()
    name = world.version("1").deployment
    del world.deployments[name]
    world.pods.clear()

    world.run(30)

    assert world.deployments[name].replicas == 2
    assert "Recreated" in world.said()


def test_a_deployment_whose_deletion_hangs_is_named_and_made_again_once_it_is_gone() -> None:
    world = World({"workers": workers()}).run(60)
    found = world.deployment("1")
    world.deployments[found.name] = replace(found, deleting=True, replicas=0)
    world.run(60)

    assert world.condition("Progressing") == ("True", "WaitingForPods")
    assert world.condition("Ready") == ("False", "Reconciling")
    assert f"Deployment {found.name} of version 1 is being deleted" in world.message("Ready")

    del world.deployments[found.name]
    world.run(60)
    assert world.condition("Ready") == ("True", "Serving")


def test_one_that_should_have_no_pods_is_not_brought_to_none_while_jobs_run() -> None:
    world = serving(replicas=1)
    world.enqueue(1, 100)
    world.run(5)
    world.change(workers=workers(replicas=0))
    del world.deployments[world.version("1").deployment]
    for pod in world.alive(world.version("1").id):
        pod.deleting = world.time

    world.run(150)

    assert world.deployment("1").replicas == 0
    assert (world.done, world.handed_back) == (1, 0)


def test_a_draining_deployment_deleted_by_hand_is_not_made_again() -> None:
    world = serving()
    world.enqueue(1, 10_000)
    world.run(5)
    world.change(workers=workers("2"))
    world.run(30)
    del world.deployments[world.version("1").deployment]
    for pod in world.of(world.version("1").id):
        pod.deleting = world.time

    world.run(300)

    assert world.states()["1"] in ("drained", "retired")
    assert world.version("1").deployment not in world.deployments


def test_a_pool_whose_rows_were_lost_gets_them_back_and_never_stops_serving() -> None:
    world = serving()
    world.change(workers=workers("2"))
    world.run(40)
    world.versions.clear()

    world.run(60)

    assert world.version("2").state is VersionState.CURRENT
    assert "1" in world.states()
    assert world.settle() == 0


def test_what_people_wrote_into_a_deployment_without_a_row_is_not_taken_over() -> None:
    world = serving()
    found = world.deployment("1")
    absurd = {naming.VERSION: "x" * 5000 + "\0", naming.VERSION_HASH: "\0"}
    world.deployments["alien"] = replace(
        found, name="alien", uid="alien", version_id="bbbbbbbb", annotations=absurd
    )

    (put,) = [each for each in plan(world.observe()).actions if isinstance(each, act.PutVersion)]

    assert (put.version.id, put.version.version, put.version.spec_hash) == ("bbbbbbbb", "x" * 63, "")


def test_a_version_that_cannot_be_made_holds_up_the_drain_of_no_other() -> None:
    world = serving()
    world.enqueue(2, 60)
    world.run(5)
    world.change(workers=workers("2"))
    world.run(40)
    assert world.states() == {"1": "draining", "2": "current"}

    world.change(workers=workers("3"))
    world.undoable = (act.TryDeployment,)
    world.run(120)

    assert world.states() == {"1": "drained", "2": "current"}


def test_a_pool_that_sleeps_gets_a_new_version_by_way_of_one_pod() -> None:
    world = World({"workers": autoscaled()}).run(500, step=5)
    assert world.deployment("1").replicas == 0

    world.change(workers=autoscaled("2"))
    world.run(40)

    assert world.states()["2"] == "current"
    world.run(500, step=5)
    assert world.deployment("2").replicas == 0


def test_workers_that_are_not_asked_for_any_more_finish_and_go() -> None:
    world = serving()
    world.enqueue(2, 100)
    world.run(5)

    world.spec = {}
    world.generation += 1
    world.run(60)
    assert world.deployment("1").replicas > 0

    world.run(200)
    assert not world.deployments
    assert world.done == 2
    assert world.handed_back == 0
    assert world.condition("Ready") == ("True", "Configured")
    assert world.condition("Progressing") == ("False", "NoWorkers")


@pytest.mark.parametrize("moment", range(0, 60, 5))
def test_an_operator_that_dies_at_any_moment_of_a_rollout_goes_on_where_it_was(moment: int) -> None:
    world = serving()
    world.enqueue(3, 30)
    world.change(workers=workers("2"))
    world.run(moment)

    world.memory = Memory()  # another operator takes over after a while
    for _ in range(20):
        world.step(1)
    world.run(300)

    assert world.states()["2"] == "current"
    assert world.done == 3
    assert world.handed_back == 0


def test_pods_without_a_registered_worker_do_not_take_over() -> None:
    world = serving()
    world.change(workers=workers("2"))
    world.look()
    target = world.version("2").id
    seen = World.seen_version
    world.seen_version = lambda version: replace(  # type: ignore[method-assign]
        found := seen(world, version), workers=0 if version.id == target else found.workers
    )

    world.run(300)

    assert world.states() == {"1": "current", "2": "pending"}


def test_the_only_gate_of_a_pool_whose_row_was_lost_is_never_closed() -> None:
    world = serving()
    world.versions.clear()

    world.look()

    assert world.states() == {"1": "current"}


def test_a_first_version_that_is_late_does_not_fail() -> None:
    world = World()
    world.pod_start = 900

    world.run(800, step=5)
    assert world.states() == {"1": "pending"}
    assert world.condition("Progressing") == ("False", "ProgressDeadlineExceeded")

    world.run(200)
    assert world.states() == {"1": "current"}


def test_a_version_that_comes_back_counts_against_the_most_too() -> None:
    said: dict[str, Any] = {"rollout": {"maxActiveVersions": 2}, "sunset": {"scaleDownDelaySeconds": 0}}
    world = World({"workers": workers(**said)}).run(60)
    world.change(workers=workers("2", **said))
    world.run(60)
    world.enqueue(4, 500)
    world.run(5)
    world.change(workers=workers("3", **said))
    world.run(60)
    assert world.states() == {"1": "drained", "2": "draining", "3": "current"}

    world.change(workers=workers("1", **said))
    world.run(60)

    assert world.states()["1"] == "drained"
    assert world.condition("Progressing") == ("False", "TooManyVersions")
    world.run(600)
    assert world.states()["1"] == "current"


def test_a_version_on_its_way_back_that_is_not_asked_for_any_more_drains_again() -> None:
    world = serving(replicas=1)
    world.enqueue(2, 500)
    world.run(5)
    world.change(workers=workers("2", replicas=1))
    world.run(30)
    first = world.version("1")
    world.versions[first.id] = replace(first, state=VersionState.PENDING)

    world.change(workers=workers("3", replicas=1))
    world.run(30)

    assert world.states()["1"] == "draining"
    world.run(600)
    assert world.handed_back == 0
    assert world.done == 2


def test_a_ramping_version_that_serves_alone_keeps_its_gate() -> None:
    world = serving()
    (version,) = world.versions.values()
    world.versions[version.id] = replace(version, state=VersionState.RAMPING, weight_percent=20)

    world.change(workers=workers("2"))
    world.look()
    assert world.states()["1"] == "ramping"

    world.run(60)
    assert world.states()["2"] == "current"
