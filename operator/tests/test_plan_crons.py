"""What a ForgeCron says, brought into its row."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from forge_jobs import CronConfig, Group
from forge_jobs.model.group import encoded
from forge_operator.plan import actions as act
from forge_operator.plan.actions import SetCron
from forge_operator.plan.cron import plan_cron
from forge_operator.plan.plan import Plan
from forge_operator.specs import CronSpec, InvalidSpec
from forge_operator.specs.section import read
from forge_operator.state.memory import Memory, Rejection
from forge_operator.state.observed import CronDatabase, CronObject, ObservedCron, Unknown
from tests.world import START

OURS = "ForgeCron shop/nightly"
SPEC = {"schedule": "0 2 * * *", "job": {"queue": "mail", "kind": "report", "args": {"days": 1}}}
ROW = CronConfig(
    name="shop/nightly",
    expression="0 2 * * *",
    kind="report",
    payload=b'{"days":1}',
    queue="mail",
    managed_by=OURS,
    next_fire_at=START + timedelta(hours=2),
)


def observed(
    row: CronConfig | None = None,
    *,
    spec: dict[str, Any] | None = None,
    database: CronDatabase | Unknown | None = None,
    **said: Any,
) -> ObservedCron:
    parsed: CronSpec | InvalidSpec
    try:
        parsed = read(CronSpec, spec or SPEC, "spec")
    except InvalidSpec as error:
        parsed = error
    cron = CronObject(namespace="shop", name="nightly", uid="u", generation=1, spec=parsed, **said)
    return ObservedCron(cron=cron, database=database or CronDatabase(now=START, row=row), now=START)


def status(found: Plan) -> dict[str, Any]:
    (write,) = [each for each in found.actions if isinstance(each, act.WriteStatus)]
    return dict(write.status)


def reason(found: Plan, kind: str) -> str:
    return next(str(each["reason"]) for each in status(found)["conditions"] if each["type"] == kind)


def test_a_new_cron_gets_a_row_named_after_its_namespace_too() -> None:
    found = plan_cron(observed())

    (written,) = [each for each in found.actions if isinstance(each, SetCron)]
    assert (written.name, written.expression, written.kind) == ("shop/nightly", "0 2 * * *", "report")
    assert written.managed_by == OURS
    assert written.values["payload"] == {"days": 1}
    assert written.values["enabled"] is True


def test_what_is_so_already_is_not_written() -> None:
    found = plan_cron(observed(ROW))

    assert [type(each) for each in found.actions] == [act.WriteStatus]
    assert status(found)["nextScheduleTime"] == "2026-01-01T02:00:00Z"
    assert reason(found, "Ready") == "Configured"

    again = plan_cron(observed(ROW, status=status(found)))
    assert again.actions == ()


def test_a_row_that_was_changed_is_made_right_again_and_that_is_said() -> None:
    before = status(plan_cron(observed(ROW)))

    found = plan_cron(observed(replace(ROW, queue="other"), status=before))

    assert isinstance(found.actions[0], SetCron)
    assert isinstance(found.actions[1], act.EmitEvent)
    assert found.actions[1].reason == "DriftRepaired"


GROUPED = SPEC | {"job": SPEC["job"] | {"group": {"name": "shop", "limit": 2, "overflow": "DropNewest"}}}  # type: ignore[operator]
FAIR = SPEC | {"job": SPEC["job"] | {"tenant": "ada"}}  # type: ignore[operator]
OF_GROUP = replace(ROW, groups=encoded([Group("shop", 2, "drop_newest")]))


@pytest.mark.parametrize(
    ("spec", "row", "wanted"),
    [
        (GROUPED, OF_GROUP, {"group": (Group("shop", 2, "drop_newest"),)}),
        (FAIR, replace(ROW, tenant="ada"), {"tenant": "ada"}),
    ],
)
def test_a_cron_has_the_group_or_the_tenant_that_its_object_says(
    spec: dict[str, Any], row: CronConfig, wanted: dict[str, Any]
) -> None:
    (written,) = [each for each in plan_cron(observed(ROW, spec=spec)).actions if isinstance(each, SetCron)]

    assert wanted.items() <= written.values.items()
    assert not [each for each in plan_cron(observed(row, spec=spec)).actions if isinstance(each, SetCron)]
    assert [each for each in plan_cron(observed(row)).actions if isinstance(each, SetCron)]


@pytest.mark.parametrize(
    ("spec", "unpublished", "said"),
    [
        (SPEC, (), ""),
        (
            SPEC,
            ("group",),
            " Its jobs do not have what the handler of 'report' says of group: say job.group.",
        ),
        (SPEC, ("unique",), " Its jobs do not have what the handler of 'report' says of unique: let a job"),
        (GROUPED, ("group",), ""),
        (FAIR, ("tenant",), ""),
        (GROUPED, ("tenant",), ""),
    ],
)
def test_a_cron_tells_what_its_handler_says_of_jobs_and_the_object_does_not(
    spec: dict[str, Any], unpublished: tuple[str, ...], said: str
) -> None:
    database = CronDatabase(now=START, row=None, unpublished=unpublished)

    conditions = status(plan_cron(observed(spec=spec, database=database)))["conditions"]

    (message,) = [each["message"] for each in conditions if each["type"] == "Synced"]
    assert message.startswith(f"Cron 'shop/nightly' is configured.{said}")
    assert bool(said) or message.endswith("configured.")


def test_a_suspended_cron_is_disabled() -> None:
    found = plan_cron(observed(ROW, spec=SPEC | {"suspend": True}))

    assert isinstance(found.actions[0], SetCron)
    assert found.actions[0].values["enabled"] is False


def test_the_first_owner_of_a_cron_keeps_it() -> None:
    found = plan_cron(observed(replace(ROW, managed_by="somebody")))

    assert not [each for each in found.actions if isinstance(each, SetCron)]
    assert reason(found, "Ready") == "CronNameConflict"


def test_a_queue_that_is_not_there_is_named() -> None:
    found = plan_cron(observed(database=CronDatabase(now=START, row=None, queue_exists=False)))

    assert reason(found, "Synced") == "UnknownQueue"
    assert not [each for each in found.actions if isinstance(each, SetCron)]


def test_a_schedule_that_the_database_refuses_is_said_and_tried_again_later() -> None:
    seen = observed()
    refused = replace(seen, memory=Memory(rejections={"1": Rejection("It never comes.", START)}))

    assert reason(plan_cron(refused), "Synced") == "InvalidSchedule"
    later = replace(refused, now=START + timedelta(minutes=2))
    assert isinstance(plan_cron(later).actions[0], SetCron)


def test_a_cron_that_the_scheduler_disabled_says_why_and_is_not_enabled_again_and_again() -> None:
    disabled = replace(ROW, enabled=False, last_error="No such time zone.")

    found = plan_cron(observed(disabled))

    assert reason(found, "Synced") == "InvalidSchedule"
    assert not [each for each in found.actions if isinstance(each, SetCron)]


def test_with_the_database_away_nothing_is_known() -> None:
    found = plan_cron(observed(database=Unknown("ConnectionFailed", "Away.")))

    assert reason(found, "Synced") == "DatabaseUnreachable"
    assert reason(found, "DatabaseReachable") == "ConnectionFailed"


def test_an_invalid_cron_says_why() -> None:
    found = plan_cron(observed(spec={"schedule": "TZ=UTC @daily", "job": SPEC["job"]}))

    assert reason(found, "Ready") == "InvalidSpec"


def test_a_cron_that_is_being_deleted_is_left_to_kubernetes() -> None:
    assert plan_cron(observed(ROW, deleting_since=START)).actions == ()


def test_a_cron_says_whether_it_is_paused_and_by_whom() -> None:
    assert reason(plan_cron(observed(ROW)), "Paused") == "Active"
    assert reason(plan_cron(observed(ROW, spec=SPEC | {"suspend": True})), "Paused") == "SpecPaused"


def test_a_cron_that_nobody_managed_to_pause_says_so() -> None:
    found = plan_cron(observed(ROW, annotations={"forge-jobs.dev/paused": "yes"}))

    assert reason(found, "Paused") == "Active"
    assert "AnnotationIgnored" in [each.reason for each in found.actions if isinstance(each, act.EmitEvent)]


def test_a_cron_that_is_left_alone_says_so_and_keeps_what_was_said_before() -> None:
    before = status(plan_cron(observed(ROW)))
    alone = observed(
        replace(ROW, queue="other"), status=before, annotations={"forge-jobs.dev/paused": "true"}
    )
    changed = replace(alone, cron=replace(alone.cron, generation=2))

    found = plan_cron(changed)

    assert [type(each) for each in found.actions] == [act.WriteStatus]
    assert (reason(found, "Paused"), reason(found, "Synced")) == ("AnnotationPaused", "ConfigApplied")
    assert status(found)["observedGeneration"] == 1
    assert status(found)["nextScheduleTime"] == before["nextScheduleTime"]
    assert plan_cron(replace(changed, cron=replace(changed.cron, status=status(found)))).actions == ()


def test_a_cron_whose_jobs_nobody_has_a_handler_for_says_so_before_it_fires() -> None:
    unknown, its_own, others = (
        plan_cron(observed(database=CronDatabase(now=START, row=ROW, handled=kinds)))
        for kinds in (None, {"report"}, {"send"})
    )

    assert [reason(each, "KindsHandled") for each in (unknown, its_own)] == ["AllHandled", "AllHandled"]
    assert reason(others, "KindsHandled") == "UnhandledKinds"
    (said,) = [each["message"] for each in status(others)["conditions"] if each["type"] == "KindsHandled"]
    assert said == "No worker of 'mail' has a handler for 'report'."
