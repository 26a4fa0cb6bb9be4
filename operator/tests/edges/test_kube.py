"""What the API server answers, and what the operator makes of it."""

from typing import Any

import pytest

from forge_operator.cluster.api import DEPLOYMENTS, LEASES, PODS, QUEUES, Kube
from forge_operator.cluster.errors import (
    Conflict,
    DryRunUnsupported,
    Failed,
    Forbidden,
    KubeError,
    NotFound,
    Rejected,
    TooManyRequests,
    Unreachable,
)
from tests.edges.api_server import ApiServer, Refused, Request, client


def deployment(name: str = "web", **spec: Any) -> dict[str, Any]:
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "a", "image": "b"}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"namespace": "default", "name": name, "labels": {"app": name}},
        "spec": {"template": template, **spec},
    }


async def test_apply_makes_then_changes_nothing_then_takes_away_what_is_not_said_any_more(
    api: ApiServer, kube: Kube
) -> None:
    first = await kube.apply(DEPLOYMENTS, "default", "web", deployment(paused=True))
    again = await kube.apply(DEPLOYMENTS, "default", "web", deployment(paused=True))
    last = await kube.apply(DEPLOYMENTS, "default", "web", deployment())

    assert first == again
    assert "paused" not in last["spec"]
    assert last["spec"]["replicas"] == 1


async def test_apply_leaves_replicas_to_whoever_scales(api: ApiServer, kube: Kube) -> None:
    await kube.apply(DEPLOYMENTS, "default", "web", deployment())
    assert await kube.scale("default", "web", 7)
    await kube.apply(DEPLOYMENTS, "default", "web", deployment(paused=True))

    found = api.get(DEPLOYMENTS, "web")
    assert found is not None and found["spec"]["replicas"] == 7


async def test_a_dry_run_answers_what_would_be_and_changes_nothing(api: ApiServer, kube: Kube) -> None:
    tried = await kube.apply(DEPLOYMENTS, "default", "web", deployment(), dry_run=True)
    assert tried["spec"]["replicas"] == 1
    assert api.get(DEPLOYMENTS, "web") is None

    made = await kube.apply(DEPLOYMENTS, "default", "web", deployment(paused=True))
    tried = await kube.apply(DEPLOYMENTS, "default", "web", deployment(), dry_run=True)
    assert "paused" not in tried["spec"]
    assert api.get(DEPLOYMENTS, "web") == made
    assert await kube.apply(DEPLOYMENTS, "default", "web", deployment(paused=True)) == made


async def test_a_webhook_that_cannot_be_asked_in_a_dry_run_says_nothing_of_what_was_sent(
    api: ApiServer, kube: Kube
) -> None:
    api.judge = lambda request: Refused(
        400, "BadRequest", 'admission webhook "sidecar.example.com" does not support dry run'
    )

    with pytest.raises(DryRunUnsupported):
        await kube.apply(DEPLOYMENTS, "default", "web", deployment(), dry_run=True)


async def test_a_field_that_the_server_does_not_know_is_refused_though_it_answers_500(
    api: ApiServer, kube: Kube
) -> None:
    message = "failed to create typed patch object (default/web; apps/v1, Kind=Deployment): .spec.x: field not declared in schema"
    api.judge = lambda request: Refused(500, "", message)

    with pytest.raises(Rejected, match="field not declared"):
        await kube.apply(DEPLOYMENTS, "default", "web", deployment())


async def test_scale_does_nothing_when_somebody_else_has_scaled(api: ApiServer, kube: Kube) -> None:
    await kube.apply(DEPLOYMENTS, "default", "web", deployment())

    assert not await kube.scale("default", "web", 5, was=3)
    assert await kube.scale("default", "web", 0, was=1)
    assert await kube.scale("default", "web", 2, was=0)


async def test_lists_are_read_page_by_page(
    api: ApiServer, kube: Kube, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forge_operator.cluster.api.PAGE", 2)
    for number in range(5):
        api.put(PODS, {"metadata": {"name": f"pod-{number}", "labels": {"odd": str(number % 2)}}})

    assert len(await kube.list(PODS, None)) == 5
    assert len(await kube.list(PODS, "default", selector="odd=1")) == 2
    assert len(api.requests) == 3 + 1


async def test_a_list_that_expires_between_pages_is_read_again_whole(
    api: ApiServer, kube: Kube, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forge_operator.cluster.api.PAGE", 2)
    for number in range(3):
        api.put(PODS, {"metadata": {"name": f"pod-{number}"}})

    def judge(request: Request) -> Refused | None:
        return Refused(410, "Expired", "too old") if "continue" in request.query else None

    api.judge = judge
    assert len(await kube.list(PODS, None)) == 3


@pytest.mark.parametrize(
    ("status", "reason", "expected"),
    [
        (400, "BadRequest", Rejected),
        (401, "Unauthorized", Forbidden),
        (403, "Forbidden", Forbidden),
        (409, "Conflict", Conflict),
        (422, "Invalid", Rejected),
        (500, "InternalError", Failed),
        (504, "Timeout", Failed),
        (503, "ServiceUnavailable", Unreachable),
    ],
)
async def test_each_refusal_has_its_class_and_says_what_was_asked(
    api: ApiServer, kube: Kube, status: int, reason: str, expected: type[KubeError]
) -> None:
    api.judge = lambda request: Refused(status, reason, "so it is")

    with pytest.raises(expected, match=r"GET .*/deployments/web: \d+ so it is"):
        await kube.get(DEPLOYMENTS, "default", "web")


async def test_a_kind_that_the_server_does_not_know_says_nothing_of_the_object(
    api: ApiServer, kube: Kube
) -> None:
    with pytest.raises(NotFound):
        await kube.get(QUEUES, "default", "mail")
    api.judge = lambda request: Refused(404, "NotFound", "the server could not find the requested resource")
    with pytest.raises(Unreachable):
        await kube.get(QUEUES, "default", "mail")


async def test_a_throttling_server_is_asked_again_when_it_says(api: ApiServer, kube: Kube) -> None:
    left = 2

    def judge(request: Request) -> Refused | None:
        nonlocal left
        left -= 1
        return Refused(429, "TooManyRequests", "later", **{"Retry-After": "0"}) if left >= 0 else None

    api.judge = judge
    assert await kube.list(PODS, None) == []


async def test_a_server_that_throttles_for_long_is_left_to_the_work_queue(api: ApiServer, kube: Kube) -> None:
    api.judge = lambda request: Refused(429, "TooManyRequests", "later", **{"Retry-After": "60"})

    with pytest.raises(TooManyRequests) as caught:
        await kube.list(PODS, None)
    assert caught.value.retry_after == 60
    assert len(api.requests) == 1


async def test_delete_spares_another_object_of_the_same_name(api: ApiServer, kube: Kube) -> None:
    made = api.put(DEPLOYMENTS, deployment())

    assert not await kube.delete(DEPLOYMENTS, "default", "web", uid="another")
    assert await kube.delete(DEPLOYMENTS, "default", "web", uid=made["metadata"]["uid"])
    assert await kube.delete(DEPLOYMENTS, "default", "web", uid=made["metadata"]["uid"])
    assert api.all(DEPLOYMENTS) == []


async def test_replacing_an_older_version_is_a_conflict(api: ApiServer, kube: Kube) -> None:
    api.put(LEASES, {"metadata": {"name": "a"}, "spec": {"holderIdentity": "x"}})
    lease = await kube.get(LEASES, "default", "a")
    api.edit(LEASES, "a", {"spec": {"holderIdentity": "y"}})

    with pytest.raises(Conflict):
        await kube.replace(LEASES, "default", "a", lease)


async def test_no_answer_is_unreachable_within_the_time_limit() -> None:
    async with client("http://127.0.0.1:1", connect=0.5, answer=0.5) as kube:
        with pytest.raises(Unreachable, match="cannot be reached"):
            await kube.get(DEPLOYMENTS, "default", "web")


async def test_versions_are_read_with_their_plus_signs(api: ApiServer, kube: Kube) -> None:
    assert await kube.version() == (1, 29)
