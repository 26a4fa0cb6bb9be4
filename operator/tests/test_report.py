"""What the status of an object says, and how often."""

from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from forge_jobs import Unhandled
from forge_operator.conditions import REASONS, Condition, ConditionReason
from forge_operator.crds import queue_definition
from forge_operator.plan.actions import EmitEvent, WriteStatus
from forge_operator.plan.assessment import Assessment
from forge_operator.plan.status.report import StatusReport, reason_of, reported
from forge_operator.state.memory import Memory
from forge_operator.state.observed import Unknown
from tests.world import START, Job, World, autoscaled, workers


def report(reason: ConditionReason = ConditionReason.CONFIG_APPLIED, **fields: Any) -> StatusReport:
    return StatusReport(
        kind="ForgeQueue",
        namespace="shop",
        name="mail",
        generation=1,
        assessments={Condition.SYNCED: Assessment(reason)},
        fields=fields,
    )


def status(found: StatusReport, before: dict[str, Any] | None = None, seconds: float = 0) -> dict[str, Any]:
    actions, _ = reported(found, before or {}, START + timedelta(seconds=seconds), Memory())
    (write,) = [each for each in actions if isinstance(each, WriteStatus)]
    return dict(write.status)


def is_written(found: StatusReport, before: dict[str, Any], seconds: float) -> bool:
    actions, _ = reported(found, before, START + timedelta(seconds=seconds), Memory(status_at=START))
    return any(isinstance(each, WriteStatus) for each in actions)


def test_what_is_so_already_is_not_written() -> None:
    assert not is_written(report(queueName="mail"), status(report(queueName="mail")), 3600)


def test_new_numbers_are_written_every_thirty_seconds_at_most() -> None:
    before = status(report(backlog={"ready": 1, "observedAt": "a"}))

    assert not is_written(report(backlog={"ready": 2, "observedAt": "b"}), before, 29)
    assert is_written(report(backlog={"ready": 2, "observedAt": "b"}), before, 30)


def test_a_new_time_of_looking_alone_is_not_written() -> None:
    before = status(report(backlog={"ready": 1, "observedAt": "a"}))

    assert not is_written(report(backlog={"ready": 1, "observedAt": "b"}), before, 3600)


def test_a_message_of_any_length_fits_the_definition() -> None:
    assessments = {Condition.PROGRESSING: Assessment(ConditionReason.INVALID_TEMPLATE, "no " * 20_000)}

    (said,) = status(replace(report(), assessments=assessments))["conditions"]

    schema = queue_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    conditions = schema["properties"]["status"]["properties"]["conditions"]
    Draft202012Validator(conditions["items"]).validate(said)


def test_a_condition_that_changed_is_written_at_once() -> None:
    assert is_written(report(ConditionReason.QUEUE_NAME_CONFLICT), status(report()), 1)


def test_the_time_of_a_transition_changes_only_with_the_status() -> None:
    first = status(report(ConditionReason.QUEUE_NAME_CONFLICT))
    other_reason = status(report(ConditionReason.INVALID_SPEC), first, 60)
    other_status = status(report(), other_reason, 90)

    assert other_reason["conditions"][0]["lastTransitionTime"] == "2026-01-01T00:00:00Z"
    assert other_status["conditions"][0]["lastTransitionTime"] == "2026-01-01T00:01:30Z"


def test_a_condition_that_turned_bad_is_an_event_once() -> None:
    bad = report(ConditionReason.QUEUE_NAME_CONFLICT)
    first, _ = reported(bad, status(report()), START, Memory())
    again, _ = reported(bad, status(bad), START, Memory())

    assert [each.reason for each in first if isinstance(each, EmitEvent)] == ["QueueNameConflict"]
    assert again == []


def test_a_reason_that_nobody_knows_is_a_failed_connection() -> None:
    assert reason_of("Whatever") is ConditionReason.CONNECTION_FAILED


def test_fields_that_could_not_be_found_out_stay_as_they_were() -> None:
    assert status(report(), status(report(replicas=3)) | {"conditions": []})["replicas"] == 3


def played(spec: dict[str, Any], seconds: float = 60) -> dict[str, Any]:
    world = World(spec)
    world.enqueue(30, 10)
    return world.run(seconds).status


@pytest.mark.parametrize(
    "spec",
    (
        {},
        {"workers": workers()},
        {"workers": autoscaled()},
        {"paused": True, "rateLimit": {"limit": 1, "periodSeconds": 1}, "workers": autoscaled()},
    ),
)
def test_a_status_fits_the_schema_and_gives_reasons_that_are_known(spec: dict[str, Any]) -> None:
    schema = queue_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    found = played(spec)

    Draft202012Validator(closed(schema)).validate(found)
    for each in found["conditions"]:
        truth = REASONS[Condition(each["type"])][reason_of(each["reason"])]  # type: ignore[call-arg]
        assert each["status"] == truth


def closed(schema: Any) -> Any:
    """The schema without room for fields that it does not name."""
    if not isinstance(schema, dict):
        return schema
    found = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict):
        found["properties"] = {key: closed(value) for key, value in schema["properties"].items()}
        found["additionalProperties"] = False
    return found


def test_ready_tells_of_missing_pods_only_when_there_should_be_some() -> None:
    world = World({"workers": workers()}).run(60)
    for pod in world.pods.values():
        pod.starts = float("inf")
    world.look()
    assert world.condition("Ready") == ("False", "NoReadyPods")
    assert world.message("Ready") == "Pods do not get ready: ImagePullBackOff (no such image)."

    asleep = World({"workers": autoscaled()}).run(500, step=5)
    assert asleep.condition("Ready") == ("True", "Serving")


def test_pods_that_cannot_start_are_told_of_with_the_reason() -> None:
    world = World({"workers": autoscaled()}).run(60)
    world.broken.update(world.versions)
    world.enqueue(30, seconds=30)
    world.run(120, step=5)

    assert world.condition("ScalingLimited") == ("True", "Unschedulable")
    assert world.message("ScalingLimited") == "Pods do not get ready: ImagePullBackOff (no such image)."


def test_jobs_that_nobody_has_a_handler_for_are_said_and_wake_no_pod() -> None:
    asleep = World({"workers": autoscaled()}).run(500, step=5)
    asleep.unhandled = {"mail": [Unhandled("mail", "sned", 3)]}
    asleep.pending = [Job(asleep.time, 1.0) for _ in range(3)]

    asleep.run(60, step=5)

    (said,) = [each for each in asleep.status["conditions"] if each["type"] == "KindsHandled"]
    assert (said["status"], said["reason"]) == ("False", "UnhandledKinds")
    assert said["message"] == "No worker of 'mail' has a handler for 'sned'."
    assert not asleep.pods


AWAY = Unknown("ConnectionFailed", "The database cannot be reached.")


@pytest.mark.parametrize("error", [AWAY, Unknown("SchemaTooOld", "forge-jobs db migrate was not run.")])
def test_what_is_installed_at_one_time_with_its_database_warns_of_nothing(error: Unknown) -> None:
    fresh = World({"workers": autoscaled(scaling={"fallbackReplicas": 1})})
    fresh.database_error = error
    fresh.run(55)
    fresh.database_error = None
    fresh.run(120)

    assert fresh.condition("Ready") == ("True", "Serving")
    assert [each for each in fresh.events if each.type == "Warning"] == []


def test_a_database_that_stays_away_is_warned_of_after_a_minute_and_one_that_goes_away_at_once() -> None:
    fresh = World({"workers": workers()})
    fresh.database_error = AWAY
    fresh.run(59)
    assert warned(fresh) == set()
    fresh.run(70, step=65)
    assert warned(fresh) == {"ConnectionFailed"}

    known = World({"workers": workers()}).run(60)
    known.database_error = AWAY
    known.look()
    assert warned(known) == {"ConnectionFailed"}


UNHANDLED = Assessment(ConditionReason.UNHANDLED_KINDS)
HANDLED = Assessment(ConditionReason.ALL_HANDLED)


def warned_at(looks: dict[int, Assessment], starts: Collection[int] = ()) -> list[int]:
    """Return the seconds at which a new object whose kinds are so warns; operators begin anew at `starts`."""
    seconds: list[int] = []
    before: dict[str, Any] = {}
    memory = Memory()
    for second, kinds in looks.items():
        assessments = {
            Condition.SYNCED: Assessment(ConditionReason.CONFIG_APPLIED),
            Condition.KINDS_HANDLED: kinds,
        }
        found = replace(report(lastSyncTime="now"), assessments=assessments)
        memory = Memory() if second in starts else memory
        actions, memory = reported(found, before, START + timedelta(seconds=second), memory)
        seconds += [second for each in actions if isinstance(each, EmitEvent)]
        written = [each.status for each in actions if isinstance(each, WriteStatus)]
        before = dict(written[0]) if written else before
    return seconds


def test_what_is_held_back_of_a_new_object_is_warned_of_once_though_it_was_synced_meanwhile() -> None:
    assert warned_at(dict.fromkeys((0, 30, 59, 61, 66, 71, 100, 125, 126, 300), UNHANDLED)) == [61]


def test_what_is_held_back_is_warned_of_however_late_the_next_look_comes() -> None:
    assert warned_at(dict.fromkeys((0, 30, 400, 405), UNHANDLED)) == [400]


def test_what_is_held_back_is_warned_of_by_one_of_two_operators() -> None:
    looks = dict.fromkeys((0, 30, 70, 75, 300, 305), UNHANDLED)

    assert warned_at(looks, starts=(70,)) == [70], "which the first did not live to see"
    assert warned_at(looks, starts=(300,)) == [70]


def test_what_comes_when_an_object_is_synced_already_is_warned_of_at_once() -> None:
    assert warned_at({0: UNHANDLED, 10: HANDLED, 20: UNHANDLED, 25: UNHANDLED}) == [20]


def warned(world: World) -> set[str]:
    return {each.reason for each in world.events if each.type == "Warning"}


@pytest.mark.parametrize(
    ("kind", "annotations", "sentence"),
    [
        ("ForgeQueue", {"forge-jobs.dev/paused": "True"}, "is 'True', allowed is 'true' or 'false'"),
        ("ForgeCron", {"forge-jobs.dev/paused": "yes"}, "is 'yes', allowed is 'true' or 'false'"),
        ("ForgeQueue", {"forge-jobs.dev/autoscaling": "Observe"}, "is 'Observe', allowed is 'observe'"),
        ("ForgeQueue", {"forge-jobs.dev/promote": "1.8.0"}, "is '1.8.0', allowed is the id of a version"),
        ("ForgeQueue", {"forge-jobs.dev/force-delete": ""}, "is '', allowed is 'true' or 'false'"),
        ("ForgeQueue", {"forge-jobs.dev/pause": "true"}, "'forge-jobs.dev/pause', allowed is"),
        ("ForgeCron", {"forge-jobs.dev/promote": "bcdfghjk"}, "'forge-jobs.dev/promote', allowed is"),
    ],
)
def test_an_annotation_that_does_nothing_is_said(
    kind: str, annotations: dict[str, str], sentence: str
) -> None:
    actions, _ = reported(replace(report(), kind=kind, annotations=annotations), {}, START, Memory())

    (event,) = [each for each in actions if isinstance(each, EmitEvent)]
    assert (event.type, event.reason) == ("Warning", "AnnotationIgnored")
    assert sentence in event.message


def test_an_annotation_that_does_nothing_is_said_once_for_as_long_as_it_is_there() -> None:
    memory, said = Memory(), []
    wrong = [{"forge-jobs.dev/paused": "yes"}] * 3 + [{"forge-jobs.dev/paused": "no"}] * 2 + [{}]
    for annotations in [*wrong, wrong[0], wrong[0]]:
        actions, memory = reported(replace(report(), annotations=annotations), {}, START, memory)
        said.append([each.reason for each in actions if isinstance(each, EmitEvent)])

    once, nothing = ["AnnotationIgnored"], list[str]()
    assert said == [once, nothing, nothing, once, nothing, nothing, once, nothing]


@pytest.mark.parametrize(
    "annotations",
    [
        {"forge-jobs.dev/paused": "false"},
        {"forge-jobs.dev/promote": "bcdfghjk", "forge-jobs.dev/autoscaling": "observe"},
        {"kubectl.kubernetes.io/last-applied-configuration": "{}", "forge-jobs.devious/paused": "1"},
    ],
)
def test_of_annotations_that_are_understood_or_not_ours_nothing_is_said(annotations: dict[str, str]) -> None:
    actions, _ = reported(replace(report(), annotations=annotations), {}, START, Memory())

    assert not [each for each in actions if isinstance(each, EmitEvent)]


def test_a_queue_that_nobody_managed_to_pause_says_so() -> None:
    queue = World({"workers": workers()})
    queue.annotations = {"forge-jobs.dev/paused": "yes"}
    queue.run(60)

    assert "AnnotationIgnored" in queue.said()
    assert queue.condition("Paused") == ("False", "Active")
