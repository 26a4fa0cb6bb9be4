"""The health checks of docs/kubernetes-argo-cd.md, run as Argo CD runs them, over what the operator says."""

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import lupa.lua51
import pytest
import yaml

from forge_jobs import CronConfig
from forge_operator.conditions import REASONS, Condition, ConditionReason, Truth
from forge_operator.plan import actions as act
from forge_operator.plan.cron import plan_cron
from forge_operator.specs import CronSpec
from forge_operator.specs.section import read
from forge_operator.state.observed import CronDatabase, CronObject, ObservedCron, Unknown
from tests.world import START, World, autoscaled, workers

PAGE = Path(__file__).parents[2] / "docs" / "kubernetes-argo-cd.md"
AWAY = Unknown("ConnectionFailed", "The database cannot be reached.")
(ARGOCD_CM,) = [
    yaml.safe_load(block)
    for block in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    if "name: argocd-cm" in block
]


def health(kind: str, status: dict[str, Any], *, generation: int = 1) -> tuple[str, str]:
    """What Argo CD shows: the status and the message. It runs Lua 5.1, with the object as `obj`."""
    lua = lupa.lua51.LuaRuntime()
    object_ = {"metadata": {"generation": generation}, "status": status}
    lua.globals().obj = lua.table_from(object_, recursive=True)
    found = lua.execute(ARGOCD_CM["data"][f"resource.customizations.health.forge-jobs.dev_{kind}"])
    return str(found.status), str(found.message)


def shown(world: World) -> tuple[str, str]:
    return health("ForgeQueue", world.status, generation=world.generation)


def begun() -> World:
    return World({"workers": workers()}).run(8)


def never_ready() -> World:
    return World({"workers": workers()}, pod_start=float("inf")).run(700)


def serving() -> World:
    return World({"workers": workers()}).run(60)


def asleep() -> World:
    return World({"workers": autoscaled()}).run(500, step=5)


def rolling_out() -> World:
    world = serving()
    world.change(workers=workers("2"))
    return world.run(8)


def draining() -> World:
    world = serving()
    world.enqueue(2, 600)
    world.run(5)
    world.change(workers=workers("2"))
    world.run(60)
    assert "draining" in world.states().values()
    return world


def awaiting_promotion() -> World:
    world = serving()
    world.change(workers=workers("2", rollout={"strategy": "Manual"}))
    return world.run(60)


def broken_version() -> World:
    world = serving()
    world.change(workers=workers("2"))
    world.look()
    world.broken.add(world.version("2").id)
    world.pods = {name: pod for name, pod in world.pods.items() if pod.version_id not in world.broken}
    return world.run(700)


def changed_and_not_seen() -> World:
    world = serving()
    world.change(workers=workers("2"))
    return world


def paused() -> World:
    return World({"paused": True, "workers": workers()}).run(60)


def left_alone() -> World:
    world = serving()
    world.annotations = {"forge-jobs.dev/paused": "true"}
    world.change(workers=workers("2"))
    return world.run(10)


def without_database() -> World:
    world = serving()
    world.database_error = AWAY
    return world.run(10)


def invalid() -> World:
    return World({"concurrency": {"limit": -1}}).run(5)


@pytest.mark.parametrize(
    ("situation", "expected"),
    [
        (World, "Progressing"),
        (begun, "Progressing"),
        (never_ready, "Degraded"),
        (serving, "Healthy"),
        (asleep, "Healthy"),
        (rolling_out, "Progressing"),
        (draining, "Healthy"),
        (awaiting_promotion, "Suspended"),
        (broken_version, "Degraded"),
        (changed_and_not_seen, "Progressing"),
        (paused, "Suspended"),
        (left_alone, "Suspended"),
        (without_database, "Degraded"),
        (invalid, "Degraded"),
    ],
)
def test_argo_cd_shows_how_a_queue_is(situation: Callable[[], World], expected: str) -> None:
    status, message = shown(situation())

    assert status == expected
    assert message.endswith(".")


def test_argo_cd_repeats_what_the_operator_says() -> None:
    world = broken_version()

    assert shown(world)[1] == world.message("Ready")
    assert "ImagePullBackOff" in shown(world)[1]


@pytest.mark.parametrize("kind", ["ForgeQueue", "ForgeCron"])
@pytest.mark.parametrize("reason", REASONS[Condition.READY])
def test_every_reason_of_ready_is_shown_as_what_it_is(kind: str, reason: ConditionReason) -> None:
    truth = REASONS[Condition.READY][reason]
    ready = {"type": "Ready", "status": truth.value, "reason": reason.value, "message": reason.meaning}
    on_its_way = (
        {ConditionReason.RECONCILING, ConditionReason.NO_READY_PODS}
        if kind == "ForgeQueue"
        else {ConditionReason.RECONCILING}
    )
    expected = "Healthy" if truth is Truth.TRUE else "Progressing" if reason in on_its_way else "Degraded"

    assert health(kind, {"observedGeneration": 1, "conditions": [ready]}) == (expected, reason.meaning)


CRON = {"schedule": "0 2 * * *", "job": {"queue": "mail", "kind": "report"}}
ROW = CronConfig(
    name="shop/nightly",
    expression="0 2 * * *",
    kind="report",
    queue="mail",
    managed_by="ForgeCron shop/nightly",
    next_fire_at=START + timedelta(hours=2),
)
THERE = CronDatabase(now=START, row=ROW)


@pytest.mark.parametrize(
    ("said", "database", "expected", "expected_after_a_change"),
    [
        ({}, THERE, "Healthy", "Progressing"),
        ({"suspend": True}, THERE, "Suspended", "Suspended"),
        ({}, AWAY, "Degraded", "Progressing"),
    ],
)
def test_argo_cd_shows_how_a_cron_is(
    said: dict[str, Any], database: CronDatabase | Unknown, expected: str, expected_after_a_change: str
) -> None:
    spec = read(CronSpec, {**CRON, **said}, "spec")
    cron = CronObject(namespace="shop", name="nightly", uid="u", generation=1, spec=spec)
    found = plan_cron(ObservedCron(cron=cron, database=database, now=START))
    (write,) = [each for each in found.actions if isinstance(each, act.WriteStatus)]

    assert health("ForgeCron", dict(write.status))[0] == expected
    assert health("ForgeCron", dict(write.status), generation=2)[0] == expected_after_a_change
