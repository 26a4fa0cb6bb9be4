"""What others are kept from taking away: a budget for evictions, and marks on pods that run jobs for long."""

from dataclasses import replace
from typing import Any

import pytest

from forge_operator.naming import DO_NOT_DISRUPT, LONG_JOBS, POOL_UID, SAFE_TO_EVICT, VERSION_ID
from forge_operator.plan import actions as act
from forge_operator.plan.disruption import LAST_TO_GO, MOST_AT_ONCE
from forge_operator.state.memory import Memory, StrandFailure
from forge_operator.state.observed import Edit
from forge_operator.state.settings import OperatorSettings
from tests.world import POOL, START, World, template, workers

ALL = {LONG_JOBS: "true", SAFE_TO_EVICT: "false", DO_NOT_DISRUPT: "true"}


def world(replicas: int = 3, *, settings: OperatorSettings | None = None, **said: Any) -> World:
    found = workers(replicas=replicas, **said)
    return World({"workers": found}, settings=settings).run(60)


def marked(world: World) -> dict[str, dict[str, str]]:
    """Return the marks of those pods that have any."""
    return {pod.name: pod.marks for pod in world.pods.values() if pod.marks}


def writes(world: World) -> list[act.MarkPod]:
    return [each for each in world.actions if isinstance(each, act.MarkPod)]


# --- the budget ---


def test_a_pool_lets_one_pod_at_a_time_be_evicted() -> None:
    serving = world()

    assert serving.budget is not None and serving.budget.name == "mail-workers"
    assert serving.budget_spec == {
        "maxUnavailable": 1,
        "selector": {
            "matchLabels": {POOL_UID: POOL},
            "matchExpressions": [{"key": VERSION_ID, "operator": "In", "values": [serving.version("1").id]}],
        },
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    assert serving.condition("Protected") == ("True", "BudgetInPlace")


def test_it_is_applied_once_while_nothing_changes() -> None:
    serving = world().run(300)

    assert sum(isinstance(each, act.ApplyBudget) for each in serving.actions) == 1


def test_versions_that_finish_their_jobs_are_in_it_and_those_that_never_got_ready_are_not() -> None:
    serving = world()
    serving.enqueue(6, 1000)
    serving.run(5)
    old = serving.version("1").id

    serving.change(workers=workers("2", replicas=3))
    serving.run(120)
    new = serving.version("2").id
    assert of_versions(serving) == sorted([old, new])

    serving.pod_start = 10_000
    serving.change(workers=workers("3", replicas=3))
    serving.run(60)
    assert serving.of(serving.version("3").id)
    assert of_versions(serving) == sorted([old, new])


def of_versions(world: World) -> list[str]:
    (expression,) = world.budget_spec["selector"]["matchExpressions"]
    found: list[str] = expression["values"]
    return found


def test_an_old_cluster_is_asked_for_what_it_knows() -> None:
    oldest = OperatorSettings(policy_version="policy/v1beta1", evicts_unhealthy=False)
    serving = world(settings=oldest)

    (applied,) = [each for each in serving.actions if isinstance(each, act.ApplyBudget)]
    assert applied.manifest["apiVersion"] == "policy/v1beta1"
    assert "unhealthyPodEvictionPolicy" not in applied.manifest["spec"]


def test_it_may_be_about_pods_that_run_jobs_for_long() -> None:
    serving = world(disruption={"budget": "LongJobs"})

    assert serving.budget_spec == {
        "maxUnavailable": 0,
        "selector": {"matchLabels": {POOL_UID: POOL, LONG_JOBS: "true"}},
    }


def test_it_goes_when_none_is_asked_for_any_more() -> None:
    serving = world()
    serving.change(workers=workers(replicas=3, disruption={"budget": "None"}))
    serving.run(10)

    assert serving.budget is None
    assert serving.condition("Protected") == ("False", "NoBudget")
    assert serving.condition("Ready") == ("True", "Serving")


def test_it_goes_with_the_last_pod_of_a_pool_that_is_to_have_no_workers() -> None:
    serving = world()
    serving.enqueue(6, 100)
    serving.run(5)
    serving.change(workers=None)

    serving.run(30)
    assert serving.pods and serving.budget is not None
    serving.run(300)
    assert not serving.pods and serving.budget is None


def test_what_people_do_to_it_is_made_right_again() -> None:
    serving = world()
    assert serving.budget is not None

    edit = Edit("other", "kubectl-edit")
    serving.budget = replace(serving.budget, edit=edit)
    (again,) = [each for each in serving.look() if isinstance(each, act.ApplyBudget)]
    assert again.edit == edit

    serving.budget = replace(serving.budget, is_other_kind=True)
    serving.look()
    assert serving.budget is None, "what applying could not take away goes with it"
    serving.look()
    assert serving.budget is not None


def test_beside_somebody_elses_budget_there_is_none() -> None:
    """The API server evicts no pod that two of them select."""
    serving = world()
    serving.budget_of_others = "their-own"
    serving.run(10)

    assert serving.budget is None
    assert serving.condition("Protected") == ("False", "OtherBudget")
    assert "'their-own'" in serving.message("Protected")
    serving.budget_of_others = None
    serving.run(10)
    assert serving.budget is not None


def test_budgets_that_may_not_be_read_are_said_and_hold_up_nothing_else() -> None:
    blind = World({"workers": workers(replicas=3)})
    blind.budgets_hidden = "poddisruptionbudgets.policy is forbidden"
    blind.run(60)

    assert not any(isinstance(each, act.ApplyBudget) for each in blind.actions)
    assert blind.condition("Protected") == ("Unknown", "BudgetsHidden")
    assert blind.condition("Ready") == ("True", "Serving")
    assert "BudgetsHidden" in [each.reason for each in blind.events]


def test_a_budget_that_is_refused_makes_the_queue_no_less_ready() -> None:
    serving = world()
    refused = StrandFailure("admission webhook denied it", 1, START)
    serving.memory = replace(serving.memory, failures={"disruption/budget": refused})

    serving.look()

    assert serving.condition("Protected") == ("False", "ActionFailed")
    assert serving.condition("Ready") == ("True", "Serving")


# --- the marks ---


def test_a_pod_that_runs_a_job_for_long_is_marked_and_idle_ones_are_not() -> None:
    serving = world()
    serving.enqueue(2, 1000)
    serving.run(58)
    assert marked(serving) == {}

    serving.run(10)

    busy = {pod.name for pod in serving.pods.values() if pod.running}
    assert 0 < len(busy) < 3
    assert marked(serving) == {name: ALL for name in busy}
    assert {pod.name for pod in serving.pods.values() if pod.cost == LAST_TO_GO} == busy


def test_short_jobs_cost_no_write_however_many_there_are() -> None:
    serving = world()
    serving.arrivals, serving.length = 5.0, 1.0

    serving.run(600)

    assert serving.done > 2000
    assert writes(serving) == []


def test_the_marks_go_when_no_job_has_run_for_long_for_a_while() -> None:
    serving = world(1)
    serving.enqueue(1, 90)
    serving.run(100)
    assert len(marked(serving)) == 1

    serving.run(30)
    assert len(marked(serving)) == 1, "another long one may follow"
    serving.run(40)

    assert marked(serving) == {}
    assert [pod.cost for pod in serving.pods.values()] == [None]
    assert len(writes(serving)) == 2


def test_jobs_that_are_just_long_enough_change_marks_once_a_minute_at_most() -> None:
    serving = world(2)
    serving.arrivals, serving.length = 0.04, 65.0

    serving.run(1800)

    assert serving.done > 30
    assert len(writes(serving)) <= 2 * 1800 / 60


def test_so_many_pods_at_most_are_marked_at_once_those_first_that_run_the_longest() -> None:
    serving = world(MOST_AT_ONCE + 15)
    serving.enqueue(10, 10_000)
    serving.run(20)
    first = {pod.name for pod in serving.pods.values() if pod.running}
    serving.enqueue(200, 10_000)
    for _ in range(80):
        serving.step(1)

    before = len(writes(serving))
    assert before == 0
    looked = [each for each in serving.look() if isinstance(each, act.MarkPod)]

    assert len(looked) == MOST_AT_ONCE
    assert first <= {each.pod for each in looked}


def test_what_the_template_says_of_its_pods_stays() -> None:
    said = template(metadata={"annotations": {SAFE_TO_EVICT: "true"}})
    serving = world(1, template=said)
    for pod in serving.pods.values():
        pod.marks = {SAFE_TO_EVICT: "true"}  # as a pod has it from its template
    serving.enqueue(1, 90)
    serving.run(70)

    assert list(marked(serving).values()) == [{**ALL, SAFE_TO_EVICT: "true"}]
    serving.run(200)
    assert list(marked(serving).values()) == [{SAFE_TO_EVICT: "true"}]


@pytest.mark.parametrize("name", [SAFE_TO_EVICT, DO_NOT_DISRUPT])
@pytest.mark.parametrize("value", ["true", "false"])
def test_what_people_write_on_an_idle_pod_stays(name: str, value: str) -> None:
    serving = world(1)
    for pod in serving.pods.values():
        pod.marks = {name: value}

    serving.run(200)

    assert list(marked(serving).values()) == [{name: value}]


def test_a_pod_with_a_long_job_that_people_let_go_may_go_until_they_say_otherwise() -> None:
    serving = world(1)
    serving.enqueue(1, 300)
    serving.run(70)
    (pod,) = serving.pods.values()
    theirs = {SAFE_TO_EVICT: "true", DO_NOT_DISRUPT: "false"}
    pod.marks |= theirs

    serving.run(60)
    assert list(marked(serving).values()) == [{LONG_JOBS: "true", **theirs}]

    del pod.marks[SAFE_TO_EVICT], pod.marks[DO_NOT_DISRUPT]
    serving.run(10)
    assert list(marked(serving).values()) == [ALL]


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ({"markPods": False}, {}),
        ({"markPods": False, "budget": "LongJobs"}, {LONG_JOBS: "true"}),
        ({"budget": "None"}, ALL),
    ],
)
def test_they_can_be_switched_off(said: dict[str, Any], left: dict[str, str]) -> None:
    serving = world(1)
    serving.enqueue(1, 1000)
    serving.run(70)
    assert list(marked(serving).values()) == [ALL]

    serving.change(workers=workers(replicas=1, disruption=said))
    serving.run(10)

    assert [pod.marks for pod in serving.pods.values()] == [left]
    assert [pod.cost for pod in serving.pods.values()] == [LAST_TO_GO if left == ALL else None]


def test_how_long_is_long_can_be_said() -> None:
    serving = world(1, disruption={"longAfterSeconds": 600})
    serving.enqueue(1, 2000)
    serving.run(590)
    assert marked(serving) == {}
    serving.run(20)
    assert len(marked(serving)) == 1


def test_a_pod_that_is_to_go_first_stays_so() -> None:
    serving = world(2)
    serving.enqueue(2, 90)
    serving.run(100)
    assert marked(serving)

    serving.change(workers=workers(replicas=1))
    serving.run(200)

    assert len(serving.pods) == 1
    assert serving.handed_back == 0


def test_an_operator_that_forgot_everything_takes_marks_away_all_the_same() -> None:
    serving = world(1)
    serving.enqueue(1, 90)
    serving.run(120)
    serving.memory = Memory()

    serving.run(100)

    assert marked(serving) == {}
