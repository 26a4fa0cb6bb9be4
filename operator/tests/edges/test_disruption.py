"""The budget for evictions and the marks of busy pods, at an API server."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from forge_operator.cluster.api import PODS, QUEUES, Kube
from forge_operator.environment import Environment
from forge_operator.loop.leader import suited
from forge_operator.naming import DELETION_COST, DO_NOT_DISRUPT, LONG_JOBS, POOL_UID, SAFE_TO_EVICT
from forge_operator.state.settings import OperatorSettings
from tests.edges.api_server import BUDGETS, OLD_BUDGETS, ApiServer, Refused, Request
from tests.edges.stage import MAIL, Stage, staged, workers

OURS = "mail-workers"
OLDEST = OperatorSettings(
    policy_version="policy/v1beta1", evicts_unhealthy=False, honours_deletion_cost=False
)


@pytest.fixture
async def stage(api: ApiServer, kube: Kube, url: str) -> AsyncIterator[Stage]:
    """An operator whose one pool serves."""
    async with staged(api, kube, url) as found:
        found.queue(workers=workers())
        await found.settle()
        yield found


def budget(stage: Stage) -> dict[str, Any]:
    found = stage.api.get(BUDGETS, OURS)
    assert found is not None
    return found


async def test_a_pool_has_a_budget_that_goes_with_it(stage: Stage) -> None:
    (owner,) = budget(stage)["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"]) == ("ForgeQueue", "mail")
    assert budget(stage)["spec"]["maxUnavailable"] == 1
    assert stage.conditions()["Protected"] == ("True", "BudgetInPlace")

    stage.api.remove(QUEUES, "mail")

    assert stage.api.all(BUDGETS) == []


async def test_while_nothing_changes_nothing_is_written(stage: Stage) -> None:
    stage.api.requests.clear()
    for _ in range(5):
        await stage.look()

    assert [each for each in stage.api.writes() if "/policy/" in each.path] == []


async def test_what_people_change_about_it_is_made_right_again_and_said(stage: Stage) -> None:
    wanted = budget(stage)["spec"]
    for change in ({"maxUnavailable": 3}, {"maxUnavailable": None, "minAvailable": 2}):
        stage.api.edit(BUDGETS, OURS, {"spec": change})
        await stage.settle()
        assert budget(stage)["spec"] == wanted
    assert "DriftRepaired" in stage.reasons()

    stage.api.remove(BUDGETS, OURS)
    await stage.settle()
    assert budget(stage)["spec"] == wanted


async def test_it_goes_when_it_is_switched_off(stage: Stage) -> None:
    stage.api.edit(QUEUES, "mail", {"spec": {"workers": {"disruption": {"budget": "None"}}}})
    await stage.settle()

    assert stage.api.all(BUDGETS) == []


@pytest.mark.parametrize(
    "theirs",
    [
        {
            "metadata": {"name": "theirs"},
            "spec": {"selector": {"matchLabels": {"app.kubernetes.io/instance": "mail"}}},
        },
        {
            "metadata": {"name": "theirs"},
            "spec": {
                "selector": {
                    "matchExpressions": [
                        {"key": "forge-jobs.dev/pool-uid", "operator": "Exists"},
                        {"key": "team", "operator": "DoesNotExist"},
                        {"key": "app.kubernetes.io/instance", "operator": "In", "values": ["fax", "mail"]},
                        {"key": "app.kubernetes.io/instance", "operator": "NotIn", "values": ["fax"]},
                    ]
                }
            },
        },
        {"metadata": {"name": "theirs"}, "spec": {"selector": {}}},
        {"metadata": {"name": OURS}, "spec": {"selector": {"matchLabels": {"app": "another"}}}},
    ],
)
async def test_somebody_elses_budget_for_the_pods_is_left_alone_and_ours_left_out(
    api: ApiServer, kube: Kube, url: str, theirs: dict[str, Any]
) -> None:
    async with staged(api, kube, url) as found:
        before = api.put(BUDGETS, theirs)
        found.queue(workers=workers())
        await found.settle()

        assert api.all(BUDGETS) == [before]
        assert found.conditions()["Protected"] == ("False", "OtherBudget")


@pytest.mark.parametrize("uid", [None, "of-another-pool"])
async def test_a_copy_of_the_budget_under_another_name_is_somebody_elses(
    stage: Stage, uid: str | None
) -> None:
    copied = budget(stage)
    labels = copied["metadata"]["labels"] | ({} if uid is None else {POOL_UID: uid})
    stage.api.put(BUDGETS, {"metadata": {"name": "copy", "labels": labels}, "spec": copied["spec"]})
    await stage.settle()

    assert stage.conditions()["Protected"] == ("False", "OtherBudget")
    assert "'copy'" in stage.message("Protected")
    assert [each["metadata"]["name"] for each in stage.api.all(BUDGETS)] == ["copy"]

    stage.api.remove(BUDGETS, "copy")
    await stage.settle()
    assert stage.conditions()["Protected"] == ("True", "BudgetInPlace")


async def test_budgets_of_other_pods_are_in_nobodys_way(stage: Stage) -> None:
    for name, selector in (("fax", {"matchLabels": {"app.kubernetes.io/instance": "fax"}}), ("none", None)):
        stage.api.put(BUDGETS, {"metadata": {"name": name}, "spec": {"selector": selector}})
    stage.api.put(
        BUDGETS, {"metadata": {"name": "elsewhere", "namespace": "other"}, "spec": {"selector": {}}}
    )
    await stage.settle()

    assert stage.conditions()["Protected"] == ("True", "BudgetInPlace")


async def test_an_operator_without_the_right_to_read_budgets_says_so_and_works_on(
    api: ApiServer, kube: Kube, url: str
) -> None:
    def judge(request: Request) -> Refused | None:
        is_theirs = "/poddisruptionbudgets" in request.path
        return Refused(403, "Forbidden", "poddisruptionbudgets.policy is forbidden") if is_theirs else None

    api.judge = judge
    async with staged(api, kube, url) as found:
        found.queue(workers=workers())
        await found.settle()
        await found.ticker.resync()
        found.reconciler._fresh = 60
        await found.reconciler.look(MAIL)

        assert found.pods() == {"1": 2}
        assert found.conditions()["Ready"] == ("True", "Serving")
        assert found.conditions()["Protected"] == ("Unknown", "BudgetsHidden")
        assert "forbidden" in found.message("Protected")


async def test_a_budget_that_is_refused_is_said_and_tried_again_later(stage: Stage) -> None:
    def judge(request: Request) -> Refused | None:
        is_theirs = request.method == "PATCH" and "/poddisruptionbudgets" in request.path
        return Refused(403, "Forbidden", "the webhook says no") if is_theirs else None

    stage.api.remove(BUDGETS, OURS)
    stage.api.judge = judge
    await stage.look()
    await stage.look()

    assert stage.conditions()["Protected"] == ("False", "ActionFailed")
    assert "the webhook says no" in stage.message("Protected")
    assert stage.conditions()["Ready"] == ("True", "Serving")


async def test_kubernetes_1_20_has_it_too(api: ApiServer, kube: Kube, url: str) -> None:
    api.version, api.lacks = {"major": "1", "minor": "20"}, {BUDGETS.group_version}
    environment = Environment(database_url=url, pools=OperatorSettings())
    settings = await suited(kube, environment)
    assert settings == OLDEST

    async with staged(api, kube, url, settings=settings) as found:
        found.queue(workers=workers())
        await found.settle()

        (made,) = api.all(OLD_BUDGETS)
        assert made["apiVersion"] == "policy/v1beta1"
        assert made["spec"].keys() == {"maxUnavailable", "selector"}
        found.api.edit(QUEUES, "mail", {"spec": {"workers": {"disruption": {"budget": "None"}}}})
        await found.settle()
        assert api.all(OLD_BUDGETS) == []


async def test_new_clusters_are_asked_for_what_they_have(api: ApiServer, kube: Kube, url: str) -> None:
    settings = await suited(kube, Environment(database_url=url, database_url_file=Path("/nowhere")))

    assert settings == OperatorSettings()


async def test_the_pod_with_a_long_job_is_marked_with_one_write_and_the_idle_one_is_not(stage: Stage) -> None:
    spec = {"workers": {"disruption": {"longAfterSeconds": 5, "budget": "LongJobs"}}}
    stage.api.edit(QUEUES, "mail", {"spec": spec})
    await stage.forge.enqueue("send", {}, queue="mail")
    busy, idle = stage.workers
    queue_id = (await stage.forge.queues.get("mail")).id
    await stage.forge.storage.claims.claim(queue_id, stage.workers[busy].id, limit=1)
    await moved_back(stage, seconds=10)
    stage.api.requests.clear()
    await stage.settle()

    marked, plain = stage.api.get(PODS, busy), stage.api.get(PODS, idle)
    assert marked is not None and plain is not None
    assert marked["metadata"]["labels"][LONG_JOBS] == "true"
    annotations = marked["metadata"]["annotations"]
    assert (annotations[SAFE_TO_EVICT], annotations[DO_NOT_DISRUPT]) == ("false", "true")
    assert int(annotations[DELETION_COST]) > 0
    assert LONG_JOBS not in plain["metadata"]["labels"] and not plain["metadata"].get("annotations")
    assert len([each for each in stage.api.writes() if f"/pods/{busy}" in each.path]) == 1
    selector = budget(stage)["spec"]["selector"]["matchLabels"]
    assert selector.items() <= marked["metadata"]["labels"].items()


async def test_a_pod_that_cannot_be_marked_is_said_and_holds_up_no_other(stage: Stage) -> None:
    stage.api.edit(QUEUES, "mail", {"spec": {"workers": {"disruption": {"longAfterSeconds": 5}}}})
    queue_id = (await stage.forge.queues.get("mail")).id
    for worker in stage.workers.values():
        await stage.forge.enqueue("send", {}, queue="mail")
        await stage.forge.storage.claims.claim(queue_id, worker.id, limit=1)
    await moved_back(stage, seconds=10)
    refused: list[str] = []

    def judge(request: Request) -> Refused | None:
        if request.method == "PATCH" and "/pods/" in request.path:
            refused.append(request.path)
        is_first = request.path in refused[:1]
        return Refused(403, "Forbidden", "the webhook says no") if is_first else None

    stage.api.judge = judge
    for _ in range(2):
        await stage.look()

    assert [LONG_JOBS in each["metadata"]["labels"] for each in stage.api.all(PODS)].count(True) == 1
    assert stage.conditions()["Protected"] == ("False", "ActionFailed")


async def moved_back(stage: Stage, *, seconds: float) -> None:
    """What runs was claimed so much earlier."""
    database = stage.forge.storage._database  # type: ignore[attr-defined]
    await database.execute(
        "UPDATE {schema}.claimed SET claimed_at = claimed_at - $1::interval", timedelta(seconds=seconds)
    )
