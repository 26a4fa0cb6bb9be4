"""When the next step of a bulk operation with a rate is made."""

from datetime import UTC, datetime, timedelta

import pytest

from forge_jobs.model.facts import Moved
from forge_jobs.model.job import State
from forge_jobs.model.match import Move
from forge_jobs.model.operation import Operation, OperationState, Position
from forge_jobs.rules.operations import after_batch

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def due(late: timedelta) -> Operation:
    return Operation(
        id=1,
        move=Move.RETRY,
        states=(State.DEAD,),
        queue=None,
        kind=None,
        tags=(),
        key=None,
        group=None,
        into=None,
        priority=None,
        rate=50.0,
        asked_by="ada",
        asked_at=NOW,
        last_id=9,
        meant=9,
        sample=(),
        state=OperationState.WORKING,
        changed=0,
        skipped=0,
        running=0,
        locked=0,
        next_at=NOW - late,
        ended_at=None,
        error=None,
    )


@pytest.mark.parametrize(("late", "until_next"), [(0.0, 1.0), (0.3, 0.7), (1.0, 0.0), (3600.0, 0.0)])
def test_a_step_that_came_late_shortens_the_wait_for_the_next_one_and_a_pause_does_not(
    late: float, until_next: float
) -> None:
    after = after_batch(due(timedelta(seconds=late)), Position(), Moved(50), NOW)

    assert after.next_at - NOW == timedelta(seconds=until_next)
    assert after.changed == 50
