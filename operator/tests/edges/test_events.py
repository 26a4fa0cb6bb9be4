"""Events are written once for each thing that is said, and counted when it is said again."""

import re
from dataclasses import replace

import pytest

from forge_operator.cluster.api import EVENTS, Kube
from forge_operator.cluster.errors import KubeError
from forge_operator.cluster.events import MOST_OF_A_REASON, SAME_FOR, EventRecorder, Subject
from tests.edges.api_server import ApiServer, Refused

MAIL = Subject("forge-jobs.dev/v1alpha1", "ForgeQueue", "default", "mail", "uid-1")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_an_event_says_what_it_is_about(api: ApiServer, kube: Kube) -> None:
    await EventRecorder(kube, "pod-1").record(MAIL, "Normal", "Promoted", "Version 2 serves.")

    event = api.all(EVENTS)[0]
    assert event["involvedObject"] == {
        "apiVersion": "forge-jobs.dev/v1alpha1",
        "kind": "ForgeQueue",
        "namespace": "default",
        "name": "mail",
        "uid": "uid-1",
    }
    assert (event["type"], event["reason"], event["message"], event["count"]) == (
        "Normal",
        "Promoted",
        "Version 2 serves.",
        1,
    )


@pytest.mark.parametrize("end", ["-", ".", ".-"])
async def test_an_object_with_a_long_name_has_events_of_valid_names(
    api: ApiServer, kube: Kube, end: str
) -> None:
    name = "n" * (200 - len(end)) + end + "m" * 40
    await EventRecorder(kube, "pod-1").record(replace(MAIL, name=name), "Normal", "Promoted", "It serves.")

    part = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
    assert re.fullmatch(rf"{part}(\.{part})*", api.all(EVENTS)[0]["metadata"]["name"])


async def test_what_is_said_again_is_counted_and_seldom_written(api: ApiServer, kube: Kube) -> None:
    clock = Clock()
    recorder = EventRecorder(kube, "pod-1", clock=clock)
    for _ in range(10):
        await recorder.record(MAIL, "Warning", "DatabaseUnreachable", "No connection.")
    assert len(api.writes()) == 1
    clock.now += SAME_FOR
    await recorder.record(MAIL, "Warning", "DatabaseUnreachable", "No connection.")

    assert [event["count"] for event in api.all(EVENTS)] == [11]
    assert len(api.writes()) == 2


async def test_another_message_is_another_event_but_not_without_end(api: ApiServer, kube: Kube) -> None:
    clock = Clock()
    recorder = EventRecorder(kube, "pod-1", clock=clock)
    for number in range(2 * MOST_OF_A_REASON):
        await recorder.record(MAIL, "Normal", "ScaledUp", f"To {number} pods.")
    assert len(api.all(EVENTS)) == MOST_OF_A_REASON
    clock.now += SAME_FOR
    await recorder.record(MAIL, "Normal", "ScaledUp", "To 99 pods.")

    assert len(api.all(EVENTS)) == MOST_OF_A_REASON + 1


async def test_an_event_that_the_server_has_forgotten_is_made_anew(api: ApiServer, kube: Kube) -> None:
    clock = Clock()
    recorder = EventRecorder(kube, "pod-1", clock=clock)
    await recorder.record(MAIL, "Normal", "Drained", "Version 1 is empty.")
    api.remove(EVENTS, api.all(EVENTS)[0]["metadata"]["name"])
    clock.now += SAME_FOR
    await recorder.record(MAIL, "Normal", "Drained", "Version 1 is empty.")
    await recorder.record(MAIL, "Normal", "Drained", "Version 1 is empty.")

    assert len(api.all(EVENTS)) == 1


async def test_an_event_that_cannot_be_written_stops_nothing(api: ApiServer, kube: Kube) -> None:
    told: list[KubeError] = []
    api.judge = lambda request: Refused(403, "Forbidden", "the namespace is being terminated")
    await EventRecorder(kube, "pod-1", failed=told.append).record(MAIL, "Normal", "Created", "x")

    assert len(told) == 1
