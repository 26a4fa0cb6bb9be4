"""What becomes of a ForgeQueue and a ForgeCron, from the API server through the plan to the database and back."""

from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from forge_jobs import Managed
from forge_jobs.model import FOREVER
from forge_jobs.testing.local_postgres import LocalPostgres
from forge_operator.cluster.api import CRONS, DEPLOYMENTS, EVENTS, PODS, QUEUES, Kube, Resource
from forge_operator.cluster.errors import Forbidden, KubeError
from forge_operator.cluster.events import Subject
from forge_operator.cluster.lease import NotLeading
from forge_operator.naming import APPLIED, POOL_UID, VERSION_ID
from forge_operator.plan.actions import (
    Action,
    DeleteCron,
    DeleteLimit,
    DeleteQueue,
    EnsureQueues,
    ManageQueue,
    SetCron,
    SetLimit,
    SetQueue,
)
from forge_operator.plan.plan import Part, Strand
from forge_operator.state.keys import CRON, QUEUE, Key
from forge_operator.state.memory import Memory
from tests.edges.api_server import BUDGETS, ApiServer, Refused, Request, forbids
from tests.edges.stage import MAIL, Stage, staged, workers


@pytest.fixture
async def stage(api: ApiServer, kube: Kube, url: str) -> AsyncIterator[Stage]:
    """An operator that looks when it is told to."""
    async with staged(api, kube, url) as found:
        yield found


async def test_a_queue_becomes_a_row_and_its_status_says_so(stage: Stage) -> None:
    stage.queue(concurrency={"limit": 7}, backoff={"enabled": False}, maxAttempts=3)
    await stage.settle()

    row = await stage.forge.queues.get("mail")
    assert (row.concurrency, row.backoff_enabled, row.max_attempts) == (7, False, 3)
    assert row.managed_by == "ForgeQueue default/mail"
    assert stage.conditions()["Ready"] == ("True", "Configured")
    with pytest.raises(Managed):
        await stage.forge.queues.set("mail", concurrency=1)


async def test_attempts_for_ever_are_said_and_kept(stage: Stage) -> None:
    stage.queue(maxAttempts=-1)
    await stage.settle()
    assert (await stage.forge.queues.get("mail")).max_attempts == FOREVER
    stage.cron(schedule="@daily", job={"queue": "mail", "kind": "send", "maxAttempts": -1})
    await stage.settle(NIGHTLY)
    assert {cron.max_attempts for cron in await stage.forge.crons.list()} == {FOREVER}

    stage.queue(maxAttempts=1)
    await stage.settle()
    assert (await stage.forge.queues.get("mail")).max_attempts == 1


async def test_a_change_reaches_the_row(stage: Stage) -> None:
    stage.queue(concurrency={"limit": 7})
    await stage.settle()
    stage.queue(concurrency={"limit": 8}, paused=True)
    await stage.settle()

    row = await stage.forge.queues.get("mail")
    assert (row.concurrency, row.paused) == (8, True)
    found = stage.api.get(QUEUES, "mail")
    assert found is not None and found["status"]["observedGeneration"] == 2


async def test_a_settled_queue_is_left_alone(stage: Stage) -> None:
    stage.queue(concurrency={"limit": 7}, workers=workers())
    await stage.settle()
    stage.api.requests.clear()
    for _ in range(3):
        await stage.look()

    assert stage.api.writes() == []


async def test_a_rate_limit_comes_and_goes_with_its_queue(stage: Stage) -> None:
    stage.queue(rateLimit={"limit": 100, "periodSeconds": 10, "burst": 20})
    await stage.settle()
    limit = await stage.forge.limits.get("mail")
    assert (limit.capacity, limit.refill, limit.managed_by) == (20, 10, "ForgeQueue default/mail")

    stage.queue()
    found = stage.api.get(QUEUES, "mail")
    assert found is not None
    stage.api.edit(QUEUES, "mail", {"spec": {"rateLimit": None}})
    await stage.settle()
    assert list(await stage.forge.limits.list()) == []


async def test_the_first_of_two_objects_owns_the_queue(stage: Stage) -> None:
    stage.queue(concurrency={"limit": 1})
    await stage.settle()
    stage.queue("other", queueName="mail", concurrency={"limit": 99})
    other = Key(QUEUE, "default", "other")
    await stage.settle(other)

    assert (await stage.forge.queues.get("mail")).concurrency == 1
    assert stage.conditions(other)["Synced"] == ("False", "QueueNameConflict")
    stage.api.remove(QUEUES, "mail")
    await stage.settle()
    await stage.settle(other)
    assert (await stage.forge.queues.get("mail")).managed_by == "ForgeQueue default/other"
    assert stage.conditions(other)["Synced"] == ("True", "ConfigApplied")


async def test_an_invalid_object_says_why_and_touches_nothing(stage: Stage) -> None:
    stage.queue(concurrency={"limit": 7})
    await stage.settle()
    stage.queue(concurrency={"limit": -1})
    await stage.settle()

    assert (await stage.forge.queues.get("mail")).concurrency == 7
    assert stage.conditions()["Synced"] == ("False", "InvalidSpec")


async def test_workers_come_up_and_are_promoted(stage: Stage) -> None:
    stage.queue(workers=workers())
    await stage.settle()

    assert await stage.states() == {"1": "current"}
    assert stage.pods() == {"1": 2}
    deployment = stage.api.all(DEPLOYMENTS)[0]
    assert deployment["metadata"]["ownerReferences"][0]["name"] == "mail"
    assert len(deployment["metadata"]["name"]) <= 46
    assert stage.conditions()["Ready"] == ("True", "Serving")
    assert "Promoted" in stage.reasons()


async def test_what_people_edit_of_a_deployment_is_repaired_and_said(stage: Stage) -> None:
    stage.queue(workers=workers())
    await stage.settle()
    [deployment] = stage.api.all(DEPLOYMENTS)
    name, before = deployment["metadata"]["name"], deployment["spec"]["template"]
    assert stage.reasons().count("DriftRepaired") == 0

    template = {"spec": {"containers": [{"name": "worker", "image": "shop:hotfix"}]}}
    stage.api.edit(DEPLOYMENTS, name, {"spec": {"template": template, "minReadySeconds": 99}})
    await stage.settle()
    [deployment] = stage.api.all(DEPLOYMENTS)
    assert deployment["spec"]["template"] == before
    assert deployment["spec"]["minReadySeconds"] == 0
    assert stage.reasons().count("DriftRepaired") == 1

    # A field of others, as `kubectl rollout restart` writes one, is left alone, and nothing is said of it.
    theirs = {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}}}
    stage.api.edit(DEPLOYMENTS, name, {"spec": {"template": theirs}})
    await stage.settle()
    [deployment] = stage.api.all(DEPLOYMENTS)
    assert "kubectl.kubernetes.io/restartedAt" in deployment["spec"]["template"]["metadata"]["annotations"]
    assert stage.reasons().count("DriftRepaired") == 1

    stage.api.edit(DEPLOYMENTS, name, {"spec": {"replicas": 5}})
    stage.api.requests.clear()
    await stage.look()
    assert not [each for each in sent_to_deployments(stage) if not each.path.endswith("/scale")]


@pytest.mark.parametrize(
    "change",
    [
        {"ownerReferences": []},
        {"ownerReferences": [{"kind": "ForgeQueue", "name": "other", "uid": "1", "apiVersion": "v1"}]},
        {"labels": {"app.kubernetes.io/managed-by": "Helm"}},
        {"labels": {"app.kubernetes.io/instance": None}},
    ],
)
@pytest.mark.parametrize("resource", [DEPLOYMENTS, BUDGETS], ids=lambda each: each.kind)
async def test_owners_and_labels_that_people_take_away_are_there_again(
    stage: Stage, resource: Resource, change: dict[str, Any]
) -> None:
    stage.queue(workers=workers())
    await stage.settle()
    [before] = stage.api.all(resource)

    stage.api.edit(resource, before["metadata"]["name"], {"metadata": change})
    await stage.settle()

    [after] = stage.api.all(resource)
    for part in ("ownerReferences", "labels"):
        assert after["metadata"][part] == before["metadata"][part]
    assert stage.reasons().count("DriftRepaired") == 1


@pytest.mark.parametrize(
    "change",
    [
        {"ownerReferences": []},
        {"ownerReferences": [{"kind": "ForgeQueue", "name": "other", "uid": "1", "apiVersion": "v1"}]},
        {"labels": {VERSION_ID: None}},
        {"labels": {POOL_UID: None}},
    ],
)
async def test_a_deployment_that_drains_keeps_its_owner_and_the_labels_by_which_it_is_found(
    stage: Stage, change: dict[str, Any]
) -> None:
    await drains(stage)
    [old, new] = stage.api.all(DEPLOYMENTS)

    stage.api.edit(DEPLOYMENTS, old["metadata"]["name"], {"metadata": change, "spec": {"minReadySeconds": 9}})
    await stage.look()

    [after, untouched] = stage.api.all(DEPLOYMENTS)
    assert after["metadata"]["labels"] == old["metadata"]["labels"]
    assert old["metadata"]["ownerReferences"][0] in after["metadata"]["ownerReferences"]
    assert after["spec"]["minReadySeconds"] == 9, "all else stays as people left it"
    assert untouched == new
    assert stage.reasons().count("DriftRepaired") == 1
    stage.api.requests.clear()
    await stage.look()
    assert sent_to_deployments(stage) == []


async def test_a_deployment_that_is_gone_with_pods_left_is_not_made_again_when_it_drains(
    stage: Stage,
) -> None:
    await drains(stage)
    [old, _] = stage.api.all(DEPLOYMENTS)
    pods = [each for each in stage.api.all(PODS) if each["metadata"]["labels"][VERSION_ID] in str(old)]
    stage.api.remove(DEPLOYMENTS, old["metadata"]["name"])
    for each in pods:
        stage.api.put(PODS, each)
    await stage.look()

    assert old["metadata"]["name"] not in [each["metadata"]["name"] for each in stage.api.all(DEPLOYMENTS)]
    assert "ActionFailed" not in stage.reasons()


async def drains(stage: Stage) -> None:
    """Version 1 drains, and version 2 serves."""
    stage.queue(workers=workers("1"))
    await stage.settle()
    stage.queue(workers=workers("2", image="shop:2"))
    for _ in range(10):
        await stage.look()
        if (await stage.states()).get("2") == "current":
            break
        stage.api.start_pods()
        await stage.beat()
    assert (await stage.states())["1"] == "draining"


async def test_what_was_edited_together_with_the_operators_annotations_is_made_right_again(
    stage: Stage,
) -> None:
    stage.queue(workers=workers())
    await stage.settle()
    [found] = stage.api.all(DEPLOYMENTS)

    change = {"metadata": {"annotations": {APPLIED: None}}, "spec": {"minReadySeconds": 99}}
    stage.api.edit(DEPLOYMENTS, found["metadata"]["name"], change)
    await stage.settle()

    [found] = stage.api.all(DEPLOYMENTS)
    assert found["spec"]["minReadySeconds"] == 0
    stage.api.requests.clear()
    await stage.look()
    assert stage.api.writes() == []


async def test_a_rollout_closes_one_gate_and_opens_the_other(stage: Stage) -> None:
    stage.queue(workers=workers("1"))
    await stage.settle()
    stage.queue(workers=workers("2", image="shop:2"))
    await stage.look()
    states = await stage.states()
    assert states == {"1": "current", "2": "pending"}, "the old one serves until the new one can"
    for _ in range(10):
        stage.api.start_pods()
        await stage.beat()
        await stage.look()
        if (await stage.states())["2"] == "current":
            break

    assert await stage.states() == {"1": "draining", "2": "current"}
    assert stage.pods() == {"1": 2, "2": 2}, "pods of the old one stay while they may hold jobs"


async def test_a_version_that_never_gets_ready_costs_nothing(stage: Stage) -> None:
    stage.queue(workers=workers("1"))
    await stage.settle()
    stage.queue(workers=workers("2", image="nowhere:2"))
    for _ in range(5):
        await stage.look()

    assert await stage.states() == {"1": "current", "2": "pending"}
    assert stage.conditions()["Progressing"] == ("True", "WaitingForPods")


async def test_a_template_that_the_server_refuses_is_said_and_not_tried_all_the_time(stage: Stage) -> None:
    def judge(request: Request) -> Refused | None:
        is_apply = request.method == "PATCH" and "/deployments/" in request.path
        return Refused(422, "Invalid", "spec.template.spec: no such field") if is_apply else None

    stage.api.judge = judge
    stage.queue(workers=workers())
    for _ in range(6):
        with suppress(KubeError):
            await stage.look()

    assert stage.conditions()["Progressing"] == ("False", "InvalidTemplate")
    assert "no such field" in stage.message("Progressing")
    applies = [each for each in stage.api.writes() if "/deployments/" in each.path]
    assert [each.query.get("dryRun") for each in applies] == ["All"]
    assert await stage.states() == {}
    stage.api.judge = lambda request: None
    stage.queue(workers=workers(image="shop:2"))
    await stage.settle()
    assert stage.conditions()["Progressing"] == ("True", "RolloutComplete")


@pytest.mark.parametrize(
    "refused",
    [
        Refused(
            500, "", "failed to create typed patch object (…): .spec.imagee: field not declared in schema"
        ),
        Refused(400, "", 'admission webhook "policy.example.com" denied the request: no such registry'),
        Refused(403, "Forbidden", "exceeded quota: compute"),
    ],
)
async def test_what_is_refused_begins_no_rollout(stage: Stage, refused: Refused) -> None:
    stage.queue(workers=workers("1"))
    await stage.settle()
    before = [each["metadata"]["name"] for each in stage.api.all(DEPLOYMENTS)]
    stage.api.judge = lambda request: refused if "dryRun" in request.query else None
    stage.queue(workers=workers("2", image="shop:2"))
    await stage.settle()

    assert stage.conditions()["Progressing"] == ("False", "InvalidTemplate")
    assert refused.message in stage.message("Progressing")
    assert await stage.states() == {"1": "current"}
    assert [each["metadata"]["name"] for each in stage.api.all(DEPLOYMENTS)] == before


WEBHOOK_IS_DOWN = Refused(
    500, "InternalError", 'failed calling webhook "policy.example.com": connection refused'
)


async def test_an_action_that_the_api_server_fails_to_do_is_said_and_holds_nothing_else_up(
    stage: Stage,
) -> None:
    stage.queue(workers=workers("1"))
    await stage.settle()
    stage.api.judge = lambda request: WEBHOOK_IS_DOWN if "dryRun" in request.query else None
    stage.queue(workers=workers("2", image="shop:2", replicas=3), concurrency={"limit": 9})
    for _ in range(3):
        await stage.look()

    assert stage.conditions()["Progressing"] == ("False", "ActionFailed")
    assert WEBHOOK_IS_DOWN.message in stage.message("Progressing")
    assert stage.conditions()["Ready"] == ("False", "ActionFailed")
    assert "ActionFailed" in stage.reasons()
    found = stage.api.get(QUEUES, "mail")
    assert found is not None
    assert found["status"]["observedGeneration"] == found["metadata"]["generation"]
    assert stage.pods() == {"1": 3}
    assert (await stage.forge.queues.get("mail")).concurrency == 9

    stage.api.judge = lambda request: None
    stage.queue(workers=workers("2", image="shop:3", replicas=3))
    await stage.settle()
    assert (await stage.states())["2"] == "current"


async def test_a_failed_action_is_tried_again_later_each_time_and_at_once_when_the_object_changed(
    stage: Stage,
) -> None:
    clock = Clock()
    stage.executor._clock = clock
    stage.api.judge = lambda request: WEBHOOK_IS_DOWN if "/deployments/" in request.path else None
    stage.queue(workers=workers())
    waits = []
    for tries in range(1, 10):
        await stage.look()
        await stage.look()
        assert len(sent_to_deployments(stage)) == tries, "one try before its time has come"
        [failure] = stage.reconciler._kept[MAIL].memory.failures.values()
        waits.append((failure.again_at - clock.now).total_seconds())
        clock.now = failure.again_at
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert stage.reasons().count("ActionFailed") == 1

    clock.now -= timedelta(seconds=1)
    stage.queue(workers=workers(image="shop:2"))
    await stage.look()
    assert len(sent_to_deployments(stage)) == 10


class Clock:
    """Stands still."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


def sent_to_deployments(stage: Stage) -> list[Request]:
    return [each for each in stage.api.writes() if "/deployments/" in each.path]


async def test_an_api_server_that_cannot_try_holds_no_rollout_up(stage: Stage) -> None:
    unsupported = Refused(
        400, "BadRequest", 'admission webhook "sidecar.example.com" does not support dry run'
    )
    stage.api.judge = lambda request: unsupported if "dryRun" in request.query else None
    stage.queue(workers=workers())
    await stage.settle()

    assert await stage.states() == {"1": "current"}


async def test_scaling_by_hand_is_followed(stage: Stage) -> None:
    stage.queue(workers=workers(replicas=2))
    await stage.settle()
    stage.api.edit(QUEUES, "mail", {"spec": {"workers": {"replicas": 5}}})
    await stage.settle()

    assert stage.pods() == {"1": 5}
    found = stage.api.get(QUEUES, "mail")
    assert found is not None and found["status"]["selector"]


async def test_who_else_scales_a_queue_down_stops_no_job(stage: Stage) -> None:
    stage.queue(workers=workers(replicas=3))
    await stage.settle()
    _, *busy = stage.workers
    await stage.forge.enqueue_many("send", [{}] * 2, queue="mail")
    queue_id = (await stage.forge.queues.get("mail")).id
    for name in busy:
        assert await stage.forge.storage.claims.claim(queue_id, stage.workers[name].id, limit=1)
    stage.api.edit(QUEUES, "mail", {"spec": {"workers": {"replicas": 1}}})

    await stage.look()
    assert stage.pods() == {"1": 3}, "the workers are told first"
    for _ in range(4):
        await stage.settle()
    assert stage.pods() == {"1": 2}, "busy ones are waited for"
    assert sorted(stage.workers) == sorted(busy)
    found = stage.api.get(QUEUES, "mail")
    assert found is not None and found["status"]["replicas"] == 2, "as other autoscalers see it"


async def test_an_idle_autoscaled_pool_goes_to_zero_and_is_woken_by_a_job(stage: Stage) -> None:
    scaling = {"minReplicas": 0, "maxReplicas": 4, "idleSeconds": 0}
    stage.queue(workers=workers(autoscaling=scaling))
    for _ in range(12):
        await stage.settle()
    assert stage.pods() == {"1": 0}
    await stage.look()
    assert MAIL in stage.reconciler.asleep()
    stage.added.clear()
    await stage.ticker.tick()
    assert stage.added == [], "who sleeps is not looked at"

    await stage.forge.enqueue("send", {}, queue="mail")
    await stage.ticker.tick()
    assert stage.added == [MAIL]
    await stage.look()
    assert stage.pods() == {"1": 1}
    assert "WokenUp" in stage.reasons()


@pytest.mark.parametrize("label", ["app.kubernetes.io/managed-by", POOL_UID, VERSION_ID])
async def test_a_deployment_whose_label_was_taken_away_keeps_its_pods(stage: Stage, label: str) -> None:
    stage.queue(workers=workers(autoscaling={"maxReplicas": 20}))
    await stage.settle()
    (name,) = [each["metadata"]["name"] for each in stage.api.all(DEPLOYMENTS)]
    stage.api.edit(DEPLOYMENTS, name, {"spec": {"replicas": 12}})
    await stage.forge.enqueue_many("send", [{}] * 4000, queue="mail")

    stage.api.edit(DEPLOYMENTS, name, {"metadata": {"labels": {label: None}}})
    await stage.ticker.resync()
    stage.reconciler._fresh = 60
    for _ in range(3):
        await stage.reconciler.look(MAIL)
        assert stage.pods()["1"] >= 12

    assert list(await stage.states()) == ["1"]
    found = stage.api.get(DEPLOYMENTS, name)
    assert found is not None
    assert {POOL_UID, VERSION_ID} <= found["metadata"]["labels"].keys()


async def test_with_the_database_away_nothing_is_scaled_down_or_deleted(
    api: ApiServer, kube: Kube, postgres: LocalPostgres, url: str
) -> None:
    async with staged(api, kube, url) as stage:
        stage.queue(workers=workers("1", autoscaling={"minReplicas": 0, "maxReplicas": 4, "idleSeconds": 0}))
        await stage.settle()
        stage.queue(workers=workers("2", replicas=1))
        await stage.look()
        before = {each["metadata"]["name"]: each["spec"] for each in api.all(DEPLOYMENTS)}
        postgres.stop(immediate=True)
        try:
            for _ in range(3):
                await stage.look()
            assert stage.conditions()["DatabaseReachable"][0] == "False"
            assert stage.conditions()["Ready"] == ("Unknown", "DatabaseUnreachable")
            assert {each["metadata"]["name"]: each["spec"] for each in api.all(DEPLOYMENTS)} == before
        finally:
            postgres.start()
        await stage.beat()
        await stage.look()
        assert stage.conditions()["DatabaseReachable"] == ("True", "Connected")


async def test_with_the_cluster_unreadable_nothing_is_scaled_down_or_deleted(stage: Stage) -> None:
    stage.queue(workers=workers(autoscaling={"minReplicas": 0, "maxReplicas": 4, "idleSeconds": 0}))
    await stage.look()
    stage.api.start_pods()
    await stage.beat()
    await stage.look()

    def judge(request: Request) -> Refused | None:
        is_list = request.method == "GET" and request.path.endswith(("/pods", "/deployments"))
        return Refused(503, "ServiceUnavailable", "away") if is_list else None

    stage.api.judge = judge
    stage.api.requests.clear()
    for _ in range(3):
        await stage.look()

    assert [each for each in stage.api.writes() if "/deployments" in each.path] == []


async def test_a_queue_whose_object_is_gone_belongs_to_nobody_and_keeps_its_jobs(stage: Stage) -> None:
    stage.queue(rateLimit={"limit": 1, "periodSeconds": 1})
    await stage.settle()
    job = await stage.forge.enqueue("send", {}, queue="mail")
    stage.api.remove(QUEUES, "mail")
    await stage.settle()

    row = await stage.forge.queues.get("mail")
    assert row.managed_by is None
    assert list(await stage.forge.limits.list()) == []
    assert row.rate_limit is None, "by a limit that is not there nothing would ever start"
    assert (await stage.forge.jobs.get(job.id)).queue == "mail"


async def test_a_forced_deletion_leaves_no_queue_behind_that_names_a_limit_which_is_gone(
    stage: Stage,
) -> None:
    stage.queue(reclaimPolicy="Delete", rateLimit={"limit": 1, "periodSeconds": 1})
    await stage.settle()
    await stage.forge.enqueue("send", {}, queue="mail")
    stage.api.edit(QUEUES, "mail", {"metadata": {"annotations": {"forge-jobs.dev/force-delete": "true"}}})
    stage.api.remove(QUEUES, "mail")
    await stage.settle()

    row = await stage.forge.queues.get("mail")
    assert (row.managed_by, row.rate_limit) == (None, None)
    assert list(await stage.forge.limits.list()) == []


async def test_rows_of_objects_that_went_while_nobody_looked_are_found_by_the_resync(
    stage: Stage,
) -> None:
    await stage.forge.queues.set("left", managed_by="ForgeQueue default/left", concurrency=1)
    await stage.forge.queues.set("hand", managed_by="ansible", concurrency=1)
    await stage.ticker.resync()

    assert stage.added == [Key(QUEUE, "default", "left")]
    await stage.settle(stage.added[0])
    assert (await stage.forge.queues.get("left")).managed_by is None
    assert (await stage.forge.queues.get("hand")).managed_by == "ansible"


async def test_an_api_server_that_cannot_list_makes_nobody_an_orphan(stage: Stage) -> None:
    await stage.forge.queues.set("left", managed_by="ForgeQueue default/left", concurrency=1)
    stage.api.judge = lambda request: Refused(503, "ServiceUnavailable", "away")
    with pytest.raises(KubeError):
        await stage.ticker.resync()
    with pytest.raises(KubeError):
        await stage.look(Key(QUEUE, "default", "left"))

    assert stage.added == []
    assert (await stage.forge.queues.get("left")).managed_by == "ForgeQueue default/left"


async def test_rows_of_namespaces_that_are_not_watched_are_let_be(
    api: ApiServer, kube: Kube, url: str
) -> None:
    async with staged(api, kube, url, namespaces=("default",)) as stage:
        await stage.forge.queues.set("theirs", managed_by="ForgeQueue elsewhere/theirs", concurrency=1)
        await stage.ticker.resync()

        assert stage.added == []


async def test_a_namespace_that_may_not_be_read_makes_nobody_an_orphan(
    api: ApiServer, kube: Kube, url: str
) -> None:
    async with staged(api, kube, url, namespaces=("default", "gone")) as stage:
        stage.queue()
        for owner in ("default/left", "gone/theirs"):
            await stage.forge.queues.set(
                owner.partition("/")[2], managed_by=f"ForgeQueue {owner}", concurrency=1
            )
        api.judge = forbids("gone")
        await stage.ticker.resync()

        assert set(stage.added) == {MAIL, Key(QUEUE, "default", "left")}

        api.judge = lambda request: forbids("gone")(request) or forbids("default")(request)
        with pytest.raises(Forbidden):
            await stage.ticker.resync()


async def test_reclaim_delete_waits_until_the_queue_is_empty(stage: Stage) -> None:
    stage.queue(reclaimPolicy="Delete", concurrency={"limit": 3})
    await stage.settle()
    job = await stage.forge.enqueue("send", {}, queue="mail")
    stage.api.remove(QUEUES, "mail")
    await stage.settle()
    assert stage.conditions()["DeletionBlocked"] == ("True", "QueueNotEmpty")

    await stage.forge.jobs.delete(job.id)
    await stage.settle()
    assert stage.api.get(QUEUES, "mail") is None
    row = await stage.forge.queues.get("mail")
    assert (row.managed_by, row.concurrency) == (None, None), "its configuration is gone"


async def test_a_forced_deletion_waits_for_nothing(stage: Stage) -> None:
    stage.queue(reclaimPolicy="Delete")
    await stage.settle()
    await stage.forge.enqueue("send", {}, queue="mail")
    stage.api.edit(QUEUES, "mail", {"metadata": {"annotations": {"forge-jobs.dev/force-delete": "true"}}})
    stage.api.remove(QUEUES, "mail")
    await stage.settle()

    assert stage.api.get(QUEUES, "mail") is None
    assert (await stage.forge.queues.get("mail")).managed_by is None


async def test_going_back_to_retain_takes_the_finalizer_away(stage: Stage) -> None:
    stage.queue(reclaimPolicy="Delete")
    await stage.settle()
    found = stage.api.get(QUEUES, "mail")
    assert found is not None and found["metadata"]["finalizers"] == ["forge-jobs.dev/finalizer"]
    stage.queue(reclaimPolicy="Retain")
    await stage.settle()

    found = stage.api.get(QUEUES, "mail")
    assert found is not None and not found["metadata"].get("finalizers")


NIGHTLY = Key(CRON, "default", "nightly")
JOB = {"queue": "mail", "kind": "send", "args": {"to": "a@example.com"}}


async def test_a_cron_becomes_a_row_once_its_queue_is_there(stage: Stage) -> None:
    stage.cron(schedule="0 3 * * *", timeZone="Europe/Berlin", job=JOB)
    await stage.settle(NIGHTLY)
    assert stage.conditions(NIGHTLY)["Synced"] == ("False", "UnknownQueue")

    stage.queue()
    await stage.settle()
    assert NIGHTLY in stage.added, "it is told of its queue"
    await stage.settle(NIGHTLY)
    row = await stage.forge.crons.get("default/nightly")
    assert (row.expression, row.timezone, row.queue) == ("0 3 * * *", "Europe/Berlin", "mail")
    assert stage.conditions(NIGHTLY)["Ready"][0] == "True"


async def test_a_cron_that_makes_no_sense_says_so(stage: Stage) -> None:
    stage.queue()
    await stage.settle()
    stage.cron(schedule="0 3 31 2 *", job=JOB)
    await stage.settle(NIGHTLY)
    await stage.look(NIGHTLY)

    assert stage.conditions(NIGHTLY)["Synced"] == ("False", "InvalidSchedule")
    assert list(await stage.forge.crons.list()) == []


async def test_a_cron_whose_object_is_gone_fires_no_more(stage: Stage) -> None:
    stage.queue()
    await stage.settle()
    stage.cron(schedule="@daily", job=JOB)
    await stage.settle(NIGHTLY)
    stage.api.remove(CRONS, "nightly")
    await stage.settle(NIGHTLY)

    assert list(await stage.forge.crons.list()) == []


@pytest.mark.parametrize("namespaces", [(), ("default", "copy"), ("copy", "default")])
async def test_what_carries_the_pools_labels_in_another_namespace_is_no_part_of_it(
    api: ApiServer, kube: Kube, url: str, namespaces: tuple[str, ...]
) -> None:
    async with staged(api, kube, url, namespaces=namespaces, fresh=60) as found:
        found.queue(workers=workers())
        await found.settle()
        [ours], pods = api.all(DEPLOYMENTS), api.all(PODS)
        for resource, each in [(DEPLOYMENTS, ours), *((PODS, pod) for pod in pods)]:
            metadata = each["metadata"] | {"namespace": "copy", "ownerReferences": []}
            api.put(resource, each | {"metadata": metadata})
        api.edit(DEPLOYMENTS, ours["metadata"]["name"], {"spec": {"replicas": 7}}, "copy")

        found.queue(workers=workers(replicas=3))
        for _ in range(3):
            await found.ticker.resync()
            await found.reconciler.look(MAIL)

        scaled = {each["metadata"]["namespace"]: each["spec"]["replicas"] for each in api.all(DEPLOYMENTS)}
        assert scaled == {"default": 3, "copy": 7}
        status = (api.get(QUEUES, "mail") or {})["status"]
        assert (status["replicas"], status["readyReplicas"]) == (3, 2)


async def test_an_object_that_was_made_again_is_another_one(stage: Stage) -> None:
    stage.queue(workers=workers())
    await stage.settle()
    first = stage.api.all(DEPLOYMENTS)[0]["metadata"]["name"]
    stage.api.remove(QUEUES, "mail")
    assert stage.api.all(DEPLOYMENTS) == stage.api.all(PODS) == []
    stage.queue(workers=workers())
    await stage.settle()

    assert stage.api.all(DEPLOYMENTS)[0]["metadata"]["name"] != first


async def test_nothing_is_written_once_the_lease_is_lost(stage: Stage) -> None:
    stage.queue(workers=workers())
    stage.executor._may_write = lambda: False
    with pytest.raises(NotLeading):
        await stage.look()

    assert stage.api.writes() == []
    assert [each.name for each in await stage.forge.queues.list() if each.name == "mail"] == []


async def test_an_older_leader_moves_no_versions(stage: Stage) -> None:
    await stage.link.epoch()
    await stage.forge.versions.take_over("operator-2")
    stage.queue(workers=workers())
    await stage.look()

    assert await stage.states() == {}
    assert stage.api.all(DEPLOYMENTS) == []


MINE = "ForgeQueue default/mail"


@pytest.mark.parametrize(
    "action",
    [
        SetQueue("mail", {"concurrency": 1}, MINE),
        SetQueue("new", {}, MINE),
        ManageQueue("mail", None, MINE),
        EnsureQueues(("new",)),
        DeleteQueue("mail", MINE),
        SetLimit("mail", 1, 1, MINE),
        DeleteLimit("mail", MINE),
        SetCron("default/nightly", "@hourly", "send", {"queue": "mail"}, MINE, "rejection"),
        DeleteCron("default/nightly", MINE),
    ],
    ids=lambda action: f"{type(action).__name__} {getattr(action, 'name', '')}",
)
async def test_an_older_leader_writes_no_row(stage: Stage, action: Action) -> None:
    await stage.link.epoch()
    await stage.forge.limits.set("mail", 9, refill=9, managed_by=MINE)
    await stage.forge.queues.set("mail", concurrency=9, managed_by=MINE)
    await stage.forge.crons.set("default/nightly", "@daily", "send", queue="mail", managed_by=MINE)
    before = [await each.list() for each in (stage.forge.queues, stage.forge.crons)]
    limits = [replace(each, tokens=0) for each in await stage.forge.limits.list()]
    await stage.forge.versions.take_over("operator-2")

    done = await stage.executor.carry_out(
        Subject("", QUEUE, "", "", ""), [Strand(Part.CONFIGURATION, (action,))], Memory()
    )

    refused = "Epoch 1 is not the present one: another operator has taken over."
    assert (done.actions, done.stopped_by) == ((), refused)
    assert [await each.list() for each in (stage.forge.queues, stage.forge.crons)] == before
    assert [replace(each, tokens=0) for each in await stage.forge.limits.list()] == limits


async def test_an_older_leader_brings_no_change_into_the_rows(stage: Stage) -> None:
    stage.queue(concurrency={"limit": 7})
    stage.cron(schedule="@daily", job=JOB)
    await stage.settle()
    await stage.settle(NIGHTLY)
    await stage.forge.versions.take_over("operator-2")

    stage.queue(concurrency={"limit": 8}, rateLimit={"limit": 1, "periodSeconds": 1})
    await stage.look()
    stage.api.remove(CRONS, "nightly")
    with pytest.raises(NotLeading):
        await stage.look(NIGHTLY)

    assert (await stage.forge.queues.get("mail")).concurrency == 7
    assert list(await stage.forge.limits.list()) == []
    assert [each.name for each in await stage.forge.crons.list()] == ["default/nightly"]
    found = stage.api.get(QUEUES, "mail")
    assert found is not None and found["status"]["observedGeneration"] == 1, "nor does it say so"


async def test_a_leader_that_was_written_over_too_late_takes_the_database_back(stage: Stage) -> None:
    stage.queue(concurrency={"limit": 7})
    await stage.settle()
    await stage.forge.versions.take_over("operator-0")  # frozen before it wrote, and thawed since
    stage.queue(concurrency={"limit": 8})

    await stage.look()
    assert (await stage.forge.queues.get("mail")).concurrency == 7
    with pytest.raises(NotLeading):
        await stage.look()  # the Lease may be another's

    stage.link._leads_since = lambda moment: True  # it was renewed
    await stage.settle()
    assert (await stage.forge.queues.get("mail")).concurrency == 8
    assert await stage.link.epoch() == 3


async def test_who_does_not_hold_the_lease_takes_no_database_over(stage: Stage) -> None:
    stage.link._leads_since = lambda moment: False

    with pytest.raises(NotLeading):
        await stage.link.epoch()

    assert (await stage.forge.versions.take_over("operator-2")).number == 1


async def test_an_event_that_cannot_be_written_holds_nothing_up(stage: Stage) -> None:
    stage.api.judge = lambda request: (
        Refused(403, "Forbidden", "no events here") if "/events" in request.path else None
    )
    stage.queue(workers=workers())
    await stage.settle()

    assert stage.conditions()["Ready"] == ("True", "Serving")
    assert stage.api.all(EVENTS) == []


async def test_everything_applied_at_once_in_the_order_of_its_names_warns_of_nothing(stage: Stage) -> None:
    stage.cron(schedule="0 3 * * *", job={"queue": "mail", "kind": "report"})
    nightly = Key(CRON, "default", "nightly")
    await stage.look(nightly)
    assert stage.conditions(nightly)["Ready"] == ("False", "UnknownQueue")
    stage.queue(workers=workers())
    await stage.settle()
    await stage.settle(nightly)

    assert stage.conditions(nightly)["Ready"][0] == stage.conditions()["Ready"][0] == "True"
    assert {each["type"] for each in stage.api.all(EVENTS)} == {"Normal"}
