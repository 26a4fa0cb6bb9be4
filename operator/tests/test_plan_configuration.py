"""What a ForgeQueue says, brought into the configuration rows."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from forge_jobs import QueueConfig, RateLimit
from forge_jobs.client.queues import checked_changes
from forge_operator.plan import actions as act
from forge_operator.plan.queue import plan_gone
from tests.world import START, World, workers

OURS = "ForgeQueue shop/mail"


def configured(**spec: object) -> World:
    world = World(dict(spec))
    world.settle()
    return world


def said(world: World) -> str:
    """Return what the condition Paused says."""
    [message] = [each["message"] for each in world.status["conditions"] if each["type"] == "Paused"]
    return str(message)


def writes(world: World) -> list[act.Action]:
    return [each for each in world.look() if not isinstance(each, act.WriteStatus)]


def test_a_new_queue_gets_a_row_that_belongs_to_its_object() -> None:
    world = configured(concurrency={"limit": 7}, backoff={"baseSeconds": 3, "maxSeconds": 60}, paused=True)

    row = world.queues["mail"]
    assert row.managed_by == OURS
    assert (row.concurrency, row.paused) == (7, True)
    assert (row.backoff_base, row.backoff_max) == (timedelta(seconds=3), timedelta(seconds=60))
    assert world.condition("Synced") == ("True", "ConfigApplied")
    assert world.condition("Ready") == ("True", "Configured")
    assert world.condition("Paused") == ("True", "SpecPaused")


def test_a_pause_says_why_and_ends_at_its_moment_without_anybody_else() -> None:
    world = configured(paused=True, pausedUntil="2026-01-01T02:00:00+01:00", pausedWhy="their shop moves")
    end = datetime(2026, 1, 1, 1, tzinfo=UTC)
    row = world.queues["mail"]
    assert (row.paused, row.paused_until, row.pause_reason) == (True, end, "their shop moves")
    assert world.condition("Paused") == ("True", "SpecPaused")
    assert said(world) == "No job of its queue is started until 2026-01-01T01:00:00Z: their shop moves"

    world.change(paused=True, pausedUntil="2026-01-01T01:30:00Z")
    assert [action.changes for action in writes(world) if isinstance(action, act.SetQueue)] == [
        {"paused": True, "paused_until": end + timedelta(minutes=30), "pause_reason": "their shop moves"}
    ], "what is said of a pause is said as a whole"

    world.settle()
    world.time = (end + timedelta(minutes=30) - START).total_seconds()
    ended = {"paused": False, "paused_until": None, "pause_reason": None}
    assert writes(world) == [act.SetQueue("mail", ended, OURS)], "and no event says that somebody meddled"
    world.settle()
    assert not world.queues["mail"].paused
    assert world.condition("Paused") == ("False", "Active")
    assert said(world) == "Its pause ended at 2026-01-01T01:30:00Z."
    assert writes(world) == []


def test_a_pause_that_the_leader_of_the_workers_has_ended_stays_ended() -> None:
    world = configured(paused=True, pausedUntil="2026-01-01T01:00:00Z")
    world.time = (datetime(2026, 1, 1, 1, tzinfo=UTC) - START).total_seconds()
    world.queues["mail"] = replace(world.queues["mail"], paused=False, paused_until=None)

    assert writes(world) == []


def test_a_reason_with_characters_that_nobody_sees_is_one_that_the_database_keeps() -> None:
    world = configured(
        paused=True,
        pausedWhy="\N{WOMAN}\N{ZERO WIDTH JOINER}\N{PERSONAL COMPUTER} deploys,\N{NO-BREAK SPACE}soon",
    )

    reason = world.queues["mail"].pause_reason
    assert checked_changes({"paused": True, "pause_reason": reason})["pause_reason"] == reason
    assert reason == "\N{WOMAN} \N{PERSONAL COMPUTER} deploys, soon"
    assert writes(world) == []


def test_what_is_so_already_is_not_written() -> None:
    assert writes(configured(concurrency={"limit": 7})) == []


def test_only_what_differs_is_written_and_said_to_be_repaired() -> None:
    world = configured(concurrency={"limit": 7})
    world.queues["mail"] = replace(world.queues["mail"], concurrency=9)

    (repair, event) = writes(world)

    assert repair == act.SetQueue("mail", {"concurrency": 7}, OURS)
    assert isinstance(event, act.EmitEvent)
    assert event.reason == "DriftRepaired"


def test_a_change_of_the_object_is_no_drift() -> None:
    world = configured(concurrency={"limit": 7})

    world.change(concurrency={"limit": 9})

    assert writes(world) == [act.SetQueue("mail", {"concurrency": 9}, OURS)]


def test_a_queue_that_code_declared_is_taken_over() -> None:
    world = World({})
    world.queues["mail"] = QueueConfig("mail")

    assert writes(world) == [act.ManageQueue("mail", OURS)]


def test_the_first_owner_of_a_queue_keeps_it_and_nothing_else_is_done() -> None:
    world = World({"workers": workers()})
    world.queues["mail"] = QueueConfig("mail", managed_by="ForgeQueue other/mail")

    world.run(30)

    assert {type(each) for each in world.actions} == {act.WriteStatus, act.EmitEvent}
    assert world.condition("Ready") == ("False", "QueueNameConflict")
    assert world.said() == ["QueueNameConflict"]
    assert "ForgeQueue other/mail" in world.events[0].message


def test_an_invalid_object_changes_nothing_and_says_why() -> None:
    world = World({"workers": workers()}).run(60)
    before = len(world.actions)

    world.change(backoff={"baseSeconds": 100, "maxSeconds": 1})
    world.run(60)

    assert {type(each) for each in world.actions[before:]} == {act.WriteStatus, act.EmitEvent}
    assert world.condition("Synced") == ("False", "InvalidSpec")
    assert world.states() == {"1": "current"}


def test_a_rate_limit_is_a_bucket_of_the_queues_name() -> None:
    world = configured(rateLimit={"limit": 10, "periodSeconds": 2, "burst": 30})

    assert world.limits["mail"] == RateLimit("mail", 30.0, 5.0, managed_by=OURS)
    assert writes(world) == []


def test_the_queue_names_its_rate_limit_and_its_timeout() -> None:
    world = configured(rateLimit={"limit": 10, "periodSeconds": 2}, timeoutSeconds=90)

    assert world.queues["mail"].rate_limit == "mail"
    assert world.queues["mail"].timeout == timedelta(seconds=90)


def test_the_queue_says_the_limit_of_groups_for_which_nobody_does() -> None:
    world = configured(groups={"limit": 4})

    assert world.queues["mail"].group_limit == 4


def test_the_queue_says_the_weights_of_its_tenants_and_takes_others_back() -> None:
    world = World({"tenants": {"weights": [{"tenant": "ada", "weight": 3}, {"tenant": "bob", "weight": 1}]}})
    world.tenant_weights["mail"] = {"cyd": 2.0}
    world.look()

    assert world.tenant_weights == {"mail": {"ada": 3.0}}
    assert writes(world) == []

    world.tenant_weights["mail"]["eve"] = 5.0  # as somebody at a terminal says
    assert act.SetTenantWeights("mail", {"ada": 3.0}) in writes(world)


def test_weights_that_the_object_says_nothing_of_are_left_alone() -> None:
    world = World({})
    world.tenant_weights["mail"] = {"ada": 3.0}

    assert act.SetTenantWeights not in {type(action) for action in world.look()}


def test_a_queue_that_says_no_tenants_have_weights_takes_all_back() -> None:
    world = World({"tenants": {}})
    world.tenant_weights["mail"] = {"ada": 3.0}

    assert act.SetTenantWeights("mail", {}) in world.look()


def test_the_queue_says_how_fast_waiting_jobs_rise() -> None:
    world = configured(ageAfterSeconds=600)

    assert world.queues["mail"].age_after == timedelta(minutes=10)


def test_a_rate_limit_that_is_not_asked_for_any_more_goes() -> None:
    world = configured(rateLimit={"limit": 10, "periodSeconds": 2})

    world.spec = {}
    world.generation += 1

    assert writes(world) == [act.SetQueue("mail", {"rate_limit": None}, OURS), act.DeleteLimit("mail", OURS)]


def test_a_rate_limit_of_somebody_else_is_left_alone() -> None:
    world = World({})
    world.limits["mail"] = RateLimit("mail", 1, 1, managed_by="ForgeQueue other/mail")

    assert writes(world) == [act.SetQueue("mail", world_row(world), OURS)]


def world_row(world: World) -> Mapping[str, Any]:
    """What a queue with nothing said is set to."""
    return {
        "concurrency": None,
        "paused": False,
        "paused_until": None,
        "pause_reason": None,
        "backoff_enabled": True,
        "backoff_base": timedelta(seconds=10),
        "backoff_max": timedelta(seconds=1800),
        "max_attempts": 5,
        "timeout": None,
        "rate_limit": None,
        "age_after": None,
        "group_limit": None,
        "done_retention": timedelta(days=7),
        "dead_retention": timedelta(days=30),
    }


def test_queues_that_the_workers_serve_exist_before_the_workers_do() -> None:
    world = World({"workers": workers(queues=["fax", "sms"])})

    done = world.look()

    kinds = [type(each) for each in done]
    assert act.EnsureQueues(("fax", "sms")) in done
    assert kinds.index(act.EnsureQueues) < kinds.index(act.ApplyDeployment)


def test_an_object_that_is_gone_leaves_its_queue_to_nobody() -> None:
    world = configured(rateLimit={"limit": 10, "periodSeconds": 2})
    world.queues["other"] = QueueConfig("other", managed_by="ForgeQueue shop/other")

    done = plan_gone(OURS, world.database()).actions

    assert done == (
        act.SetQueue("mail", {"rate_limit": None}, OURS),
        act.DeleteLimit("mail", OURS),
        act.ManageQueue("mail", None, OURS),
    )


def test_an_object_that_is_to_be_left_alone_is() -> None:
    world = World({"workers": workers()}).run(60)
    world.annotations = {"forge-jobs.dev/paused": "true"}
    world.queues["mail"] = replace(world.queues["mail"], concurrency=9)
    before = len(world.actions)

    world.change(workers=workers("2"))
    world.run(60)

    assert {type(each) for each in world.actions[before:]} == {act.WriteStatus}
    assert world.condition("Paused") == ("True", "AnnotationPaused")
    assert world.condition("Synced") == ("True", "ConfigApplied")
