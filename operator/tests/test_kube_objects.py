"""What is made of objects as the API server gives them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from forge_operator.cluster.objects import pod
from forge_operator.state.observed import Pod
from forge_operator.words import count


def seen(*containers: dict[str, Any], **conditions: dict[str, Any]) -> Pod:
    found = pod(
        {
            "metadata": {"name": "mail-1", "uid": "u", "labels": {}},
            "status": {
                "phase": "Pending",
                "conditions": [{"type": kind, **said} for kind, said in conditions.items()],
                "containerStatuses": list(containers),
            },
        }
    )
    assert found is not None
    return found


def waiting(reason: str, message: str = "", **said: Any) -> dict[str, Any]:
    return {"state": {"waiting": {"reason": reason, "message": message}}, "ready": False, **said}


def crashed(code: int, reason: str = "Error", message: str = "") -> dict[str, Any]:
    return {"lastState": {"terminated": {"exitCode": code, "reason": reason, "message": message}}}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            seen(PodScheduled={"status": "False", "reason": "Unschedulable", "message": "0/3 nodes fit."}),
            "Unschedulable (0/3 nodes fit)",
        ),
        (
            seen(waiting("ImagePullBackOff", 'Back-off pulling image "shop:2"')),
            'ImagePullBackOff (Back-off pulling image "shop:2")',
        ),
        (
            seen(waiting("CreateContainerConfigError", 'secret "shop-db" not found')),
            'CreateContainerConfigError (secret "shop-db" not found)',
        ),
        (
            seen(waiting("CrashLoopBackOff", "back-off 40s", **crashed(137, "OOMKilled"))),
            "CrashLoopBackOff (exit code 137, OOMKilled)",
        ),
        (
            seen(waiting("CrashLoopBackOff", **crashed(2, message="one line\nFORGE_APP is 'x'\n\n"))),
            "CrashLoopBackOff (exit code 2: FORGE_APP is 'x')",
        ),
        (
            seen(waiting("CrashLoopBackOff", **crashed(1, message='{"level":"error","message":"No disk."}'))),
            "CrashLoopBackOff (exit code 1: No disk)",
        ),
        (
            seen(waiting("CrashLoopBackOff", **crashed(1, message='{"level":"error"}'))),
            'CrashLoopBackOff (exit code 1: {"level":"error"})',
        ),
    ],
    ids=lambda each: each.pending_reason if isinstance(each, Pod) else "",
)
def test_what_keeps_a_pod_from_getting_ready_is_said_in_kubernetes_own_sentence(
    found: Pod, said: str
) -> None:
    assert found.complaint == said
    assert found.pending_reason == said.split(" ")[0]


def test_a_container_that_was_started_again_says_how_it_ended() -> None:
    found = seen({"state": {"running": {}}, "ready": False, **crashed(1, message="no such table: orders")})

    assert found.complaint == "Restarted (exit code 1: no such table: orders)"
    assert found.pending_reason is None, "it waits for no node and no image: more pods are no worse off"


def ended(reason: str, began: str, ended: str) -> dict[str, Any]:
    at = "2026-01-01T{}:00Z"
    return {"exitCode": 137, "reason": reason, "startedAt": at.format(began), "finishedAt": at.format(ended)}


def test_what_ended_in_a_pod_is_counted_with_the_last_of_it() -> None:
    found = seen(
        {
            "restartCount": 2,
            "state": {"running": {}},
            "lastState": {"terminated": ended("OOMKilled", "10:00", "10:40")},
        },
        {"restartCount": 1, "state": {"terminated": ended("Error", "10:10", "10:50")}, "lastState": {}},
        {"restartCount": 0, "state": {"running": {}}},
    )

    assert (found.restarts, found.out_of_memory) == (3, 1)
    assert found.restarted_at == datetime(2026, 1, 1, 10, 50, tzinfo=UTC)
    assert found.lasted == timedelta(minutes=40)


def test_a_pod_in_which_nothing_ended_says_nothing_of_it() -> None:
    found = seen({"restartCount": 0, "state": {"running": {}}, "ready": True})

    assert (found.restarts, found.out_of_memory, found.restarted_at) == (0, 0, None)


def test_nothing_is_said_of_a_pod_that_starts_or_is_ready() -> None:
    starting = seen(waiting("ContainerCreating"))
    ready = seen({"state": {"running": {}}, "ready": True, **crashed(1)}, Ready={"status": "True"})

    assert (starting.complaint, ready.complaint) == (None, None)


def test_a_long_message_is_cut() -> None:
    complaint = seen(waiting("ErrImagePull", "x" * 10_000)).complaint

    assert complaint is not None and len(complaint) < 400


def test_numbers_agree_with_their_nouns_and_verbs() -> None:
    assert [count(number, "job") for number in (0, 1, 2)] == ["0 jobs", "1 job", "2 jobs"]
    assert count(1, "pod", ("opens", "open")) == "1 pod opens"
    assert count(3, "pod", ("opens", "open")) == "3 pods open"
