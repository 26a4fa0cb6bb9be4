"""Why a job is not running: every reason there can be, as a sentence."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from forge_jobs.model.facts import HeldSlots, SlotFacts, SlotHolder, Waiting
from forge_jobs.model.job import FOREVER, Job, Reason, State
from forge_jobs.model.paused_kind import PausedKind
from forge_jobs.model.permit import AwaitedKey
from forge_jobs.model.queue import QueueConfig
from forge_jobs.model.step import JobStep, StepSort
from forge_jobs.model.worker import WorkerInfo
from forge_jobs.rules.why import explain
from forge_jobs.rules.words import to_the_second

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MAIL = QueueConfig("mail")
WORKER = WorkerInfo(7, "shop-worker-1-7", "host", 1, "1", ("mail",), ("send",), 10, beat_at=NOW)


def job(state: State, **facts: Any) -> Job:
    known: dict[str, Any] = dict(
        id=1,
        queue="mail",
        kind="send",
        payload=b"{}",
        codec="json",
        priority=0,
        attempt=0,
        max_attempts=5,
        timeout=None,
        key=None,
        created_at=NOW - timedelta(minutes=1),
    )
    return Job(state=state, **(known | facts))


def waiting(queue: QueueConfig = MAIL, **facts: Any) -> Waiting:
    known: dict[str, Any] = dict(
        slots=0, slots_held=0, ahead=0, ahead_limit=10_000, now=NOW, ready_at=NOW - timedelta(seconds=2)
    )
    return Waiting(queue=queue, **(known | facts))


def reasons(job: Job, workers: Sequence[WorkerInfo] = (WORKER,), **around: Any) -> list[str]:
    return list(explain(job, NOW, workers=workers, **around).reasons)


def workers(count: int, **facts: Any) -> list[WorkerInfo]:
    return [replace(WORKER, **{"id": n, "label": f"w{n}", **facts}) for n in range(1, count + 1)]


def heard_of(ago: float, **facts: Any) -> WorkerInfo:
    return replace(WORKER, beat_at=NOW - timedelta(seconds=ago), **facts)


def ready_for(seconds: float, **facts: Any) -> Waiting:
    return waiting(ready_at=NOW - timedelta(seconds=seconds), **facts)


def test_a_pending_job_that_nothing_holds_back_says_so():
    assert reasons(job(State.PENDING), waiting=waiting()) == [
        "Nothing holds it back; the next free worker of its queue takes it."
    ]


def test_a_job_that_nobody_has_taken_for_longer_than_workers_take_to_look_says_so():
    assert reasons(job(State.PENDING), waiting=ready_for(180)) == [
        "It has been ready for 3 min, and has not been taken by worker shop-worker-1-7: "
        "look at its log and its /readyz."
    ]
    assert reasons(job(State.PENDING), workers(5), waiting=ready_for(180)) == [
        "It has been ready for 3 min, and has not been taken by workers w1, w2, w3 and 2 more: "
        "look at their logs and their /readyz."
    ]


def test_a_job_whose_turn_does_not_come_says_that_nothing_of_its_queue_is_taken():
    assert reasons(job(State.PENDING), workers(2), waiting=ready_for(180, ahead=4)) == [
        "4 jobs of its queue are ahead of it.",
        "It has been ready for 3 min, and has not been taken by workers w1 and w2: "
        "look at their logs and their /readyz.",
    ]


def test_a_job_whose_queue_moves_only_waits_for_its_turn():
    moving = {"taken_at": NOW - timedelta(seconds=4)}

    assert reasons(job(State.PENDING), waiting=ready_for(180, ahead=4, **moving)) == [
        "4 jobs of its queue are ahead of it."
    ]
    assert reasons(job(State.PENDING), waiting=ready_for(180, **moving)) == [
        "It has been ready for 3 min; a job of its queue was taken 4 s ago."
    ]


def test_a_job_whose_workers_are_busy_says_so_however_long_it_waits():
    assert reasons(job(State.PENDING), workers(2, in_progress=10), waiting=ready_for(180)) == [
        "Every worker that could take it is busy: their 20 slots are in use."
    ]


def test_a_pending_job_repeats_what_workers_say_of_themselves():
    unwell = "It could not look for jobs for 20 s: permission denied for table ready"

    assert reasons(job(State.PENDING), workers(1, ailment=unwell), waiting=ready_for(180)) == [
        f"Worker w1 reports: {unwell}"
    ]
    assert reasons(job(State.PENDING), workers(5, ailment=unwell), waiting=waiting())[3:] == [
        "2 more workers of its queue cannot work either."
    ]


def test_a_worker_that_fell_silent_is_named():
    assert reasons(job(State.PENDING), [heard_of(20)], waiting=ready_for(60)) == [
        "It has been ready for 1 min, and has not been taken by worker shop-worker-1-7: "
        "look at its log and its /readyz.",
        "Worker shop-worker-1-7 of its queue was last heard from 20 s ago.",
    ]
    assert reasons(job(State.PENDING), [heard_of(300)], waiting=waiting()) == [
        "No live worker serves queue 'mail'.",
        "Worker shop-worker-1-7 of its queue was last heard from 5 min ago.",
    ]


def test_workers_that_beat_seldom_are_alive_until_their_stale_time_is_over():
    found = explain(
        job(State.PENDING), NOW, waiting=waiting(), workers=[heard_of(50)], stale=timedelta(minutes=2)
    )

    assert found.reasons[0].startswith("Nothing holds it back")


def test_a_job_that_moves_while_it_is_asked_about_is_to_be_asked_about_again():
    assert reasons(job(State.PENDING), waiting=waiting(ready_at=None)) == [
        "It was pending and is changing its state right now: ask again."
    ]


@pytest.mark.parametrize(
    ("around", "reason"),
    [
        (waiting(replace(MAIL, paused=True)), "Queue 'mail' is paused."),
        (
            waiting(MAIL, paused_kind=PausedKind("send", NOW - timedelta(seconds=1))),
            f"Kind 'send' is paused until {to_the_second(NOW - timedelta(seconds=1))}, "
            "and about to be resumed by the leading worker.",
        ),
        (
            waiting(
                replace(MAIL, paused=True, paused_until=NOW + timedelta(hours=2), pause_reason="no stamps")
            ),
            f"Queue 'mail' is paused until {to_the_second(NOW + timedelta(hours=2))}, for another 2 h: no stamps.",
        ),
        (
            waiting(replace(MAIL, cooldown_until=NOW + timedelta(seconds=90), throttles=2)),
            "Queue 'mail' cools down after 2 throttles in a row until 2026-03-01 12:01:30 UTC, in 1 min 30 s.",
        ),
        (
            waiting(replace(MAIL, concurrency=0)),
            "Queue 'mail' has a concurrency of 0, so none of its jobs may run.",
        ),
        (waiting(slots=3, slots_held=3), "All 3 slots of queue 'mail' are in use."),
        (waiting(slots=1, slots_held=1), "The one slot of queue 'mail' is in use."),
        (
            waiting(replace(MAIL, rate_limit="slack"), tokens=0.9),
            "The rate limit 'slack' of the queue has no token.",
        ),
        (
            waiting(replace(MAIL, rate_limit="slack")),
            "There is no rate limit 'slack', which queue 'mail' takes tokens from, so none of its jobs may start.",
        ),
        (waiting(ahead=1), "1 job of its queue is ahead of it."),
        (waiting(ahead=4321), "4,321 jobs of its queue are ahead of it."),
        (waiting(ahead=10_000), "10,000+ jobs of its queue are ahead of it."),
    ],
)
def test_a_pending_job_names_what_holds_it_back(around: Waiting, reason: str):
    assert reasons(job(State.PENDING), waiting=around) == [reason]


@pytest.mark.parametrize(
    ("there", "reason"),
    [
        ([], "No live worker serves queue 'mail'."),
        (workers(1, queues=("other",)), "No live worker serves queue 'mail'."),
        (workers(1, draining=True), "No live worker serves queue 'mail'."),
        (
            workers(2, kinds=("other",)),
            "No worker handles kind 'send': of 2 live workers serving queue 'mail', none has a handler for it.",
        ),
        (
            [*workers(2, is_open=False), replace(WORKER, kinds=("other",))],
            "No worker that could run it may claim: each is of a version that is not promoted or that drains, "
            "or is paused or cordoned.",
        ),
    ],
)
def test_a_pending_job_says_that_nobody_is_there_to_take_it(there: list[WorkerInfo], reason: str):
    assert reasons(job(State.PENDING), there, waiting=ready_for(180)) == [reason]


def test_a_pending_job_names_everything_that_holds_it_back_what_weighs_most_first():
    around = waiting(replace(MAIL, paused=True), slots=3, slots_held=3, ahead=2)

    found = reasons(job(State.PENDING), (), waiting=around)

    assert [reason.split()[0] for reason in found] == ["Queue", "No", "All", "2"]


def test_a_pending_job_says_how_far_it_has_risen():
    queue = replace(MAIL, age_after=timedelta(minutes=10))

    assert reasons(job(State.PENDING, priority=5, risen=2), waiting=waiting(queue, ahead=3))[1:] == [
        "Its priority has risen from 5 to 3 while it waited, by 1 for every 10 min."
    ]
    assert reasons(job(State.PENDING, priority=5), waiting=waiting(queue, ahead=3))[1:] == [
        "Its priority of 5 rises while it waits, by 1 for every 10 min, but above no other that waits in the queue."
    ]
    assert reasons(job(State.PENDING, priority=5, risen=2), waiting=waiting(ahead=3))[1:] == [
        "Its priority has risen from 5 to 3 while it waited."
    ]


def test_free_slots_and_a_cool_down_that_is_over_hold_nothing_back():
    around = waiting(replace(MAIL, cooldown_until=NOW, throttles=1), slots=3, slots_held=2)

    assert reasons(job(State.PENDING), waiting=around)[0].startswith("Nothing holds it back")


def test_a_rate_limit_with_a_token_holds_nothing_back():
    around = waiting(replace(MAIL, rate_limit="slack"), tokens=1.0)

    assert reasons(job(State.PENDING), waiting=around)[0].startswith("Nothing holds it back")


def test_a_scheduled_job_says_until_when_it_waits():
    delayed = job(State.SCHEDULED, run_at=NOW + timedelta(hours=2), reason=Reason.DELAYED)

    assert reasons(delayed, waiting=waiting()) == [
        "Its first attempt waits until 2026-03-01 14:00:00 UTC, in 2 h."
    ]


@pytest.mark.parametrize(
    ("reason", "beginning"),
    [
        (Reason.RETRY, "Attempt 2 of 5 failed; the next one waits until"),
        (Reason.THROTTLED, "It was throttled; its next attempt waits until"),
        (Reason.RESCHEDULED, "Its handler rescheduled it; its next attempt waits until"),
    ],
)
def test_a_job_that_waits_for_another_attempt_says_why(reason: Reason, beginning: str):
    later = job(State.RETRYING, attempt=2, run_at=NOW + timedelta(seconds=40), reason=reason)

    assert reasons(later, waiting=waiting())[0].startswith(beginning)


def test_a_job_that_waits_for_tokens_of_a_key_names_it():
    later = job(State.SCHEDULED, run_at=NOW + timedelta(seconds=40), reason=Reason.THROTTLED)

    assert reasons(later, waiting=waiting(awaited=AwaitedKey("model", "ann"))) == [
        "It waits for tokens of key 'ann' of rate limit 'model'; its next attempt waits until "
        "2026-03-01 12:00:40 UTC, in 40 s."
    ]


def test_a_sleeping_job_says_in_which_step_and_what_it_has_done():
    done = JobStep(1, "charge", StepSort.STEP, 1, NOW - timedelta(minutes=3), None, "json")
    until = NOW + timedelta(days=2)
    sleep = JobStep(2, "cool off", StepSort.SLEEP, 1, NOW, None, "json", until, is_over=False)
    sleeping = job(State.SCHEDULED, run_at=until, reason=Reason.SLEEPING, steps=(done, sleep))

    assert reasons(sleeping, waiting=waiting()) == [
        "It sleeps in step 'cool off'; its next attempt waits until 2026-03-03 12:00:00 UTC, in 2 d.",
        "It has done 1 step, at last 'charge', 3 min ago.",
    ]


def test_a_retrying_job_says_its_last_error_and_what_else_will_stand_in_its_way():
    retrying = job(
        State.RETRYING,
        attempt=2,
        run_at=NOW + timedelta(seconds=40),
        reason=Reason.RETRY,
        error="Traceback (most recent call last):\n  File ...\nValueError: no address\n",
    )

    assert reasons(retrying, waiting=waiting(replace(MAIL, paused=True)))[1:] == [
        "Its last error was: ValueError: no address",
        "Queue 'mail' is paused.",
    ]


def test_a_job_whose_time_has_come_says_that_it_is_due():
    due = job(State.SCHEDULED, run_at=NOW - timedelta(seconds=3), reason=Reason.DELAYED)

    assert "was due 3 s ago" in reasons(due, waiting=waiting())[0]
    assert reasons(due, waiting=waiting())[0].endswith("; the next worker that looks makes it pending.")
    assert reasons(due, (), waiting=waiting())[0].endswith("; no worker is alive that would make it pending.")


def test_a_job_that_nobody_makes_pending_though_its_time_has_come_says_so():
    overdue = job(State.SCHEDULED, run_at=NOW - timedelta(minutes=3), reason=Reason.DELAYED)

    assert reasons(overdue, workers(2), waiting=waiting()) == [
        "Its first attempt was due 3 min ago, at 2026-03-01 11:57:00 UTC, and has not been made pending by "
        "workers w1 and w2: look at their logs and their /readyz."
    ]


def test_a_running_job_names_its_worker_and_since_when():
    running = job(
        State.IN_PROGRESS, attempt=1, worker_id=7, worker=WORKER.label, claimed_at=NOW - timedelta(minutes=5)
    )

    assert reasons(running) == [
        "It was claimed by shop-worker-1-7 5 min ago, at 2026-03-01 11:55:00 UTC; this is attempt 1 of 5.",
        "That worker is alive: it was heard from just now.",
    ]


def test_a_running_job_says_that_its_worker_does_not_run_it():
    running = job(State.IN_PROGRESS, attempt=1, worker_id=7, worker=WORKER.label, claimed_at=NOW)

    assert reasons(running, [replace(WORKER, adrift=(1,))])[1].startswith(
        "That worker is alive but does not run the job"
    )


def test_a_running_job_repeats_what_its_worker_says_of_itself():
    running = job(State.IN_PROGRESS, attempt=1, worker_id=7, worker=WORKER.label, claimed_at=NOW)
    unwell = replace(WORKER, ailment="It could not record outcomes for 20 s: disk full")

    assert reasons(running, [unwell])[-1] == ("It reports: It could not record outcomes for 20 s: disk full")


def test_a_running_job_says_that_its_timeout_is_over():
    running = job(
        State.IN_PROGRESS,
        attempt=1,
        worker_id=7,
        worker=WORKER.label,
        claimed_at=NOW - timedelta(seconds=15),
        timeout=timedelta(seconds=10),
    )

    assert reasons(running)[2].startswith("Its timeout of 10 s is over")


@pytest.mark.parametrize(
    ("state", "which"),
    [(State.DEAD, "attempt 2"), (State.RETRYING, "attempt 2"), (State.IN_PROGRESS, "an earlier attempt")],
)
def test_a_job_says_where_its_handler_goes_on(state: State, which: str):
    stuck = job(state, attempt=2)

    assert reasons(stuck, [replace(WORKER, stuck=(1,))])[-1] == (
        f"The handler of {which} goes on in shop-worker-1-7, though it was told to stop."
    )


def test_a_running_job_that_is_cancelled_says_so():
    running = job(
        State.IN_PROGRESS,
        attempt=1,
        worker_id=7,
        worker=WORKER.label,
        claimed_at=NOW - timedelta(minutes=5),
        cancel_requested_at=NOW - timedelta(seconds=4),
    )

    assert reasons(running)[1].startswith("A user asked 4 s ago that it be cancelled")


def test_a_running_job_says_when_its_worker_is_silent_or_gone():
    running = job(State.IN_PROGRESS, attempt=1, worker_id=7, worker=WORKER.label, claimed_at=NOW)

    assert reasons(running, [heard_of(25)])[1].startswith("That worker was last heard from 25 s ago")
    assert reasons(running, ())[1].startswith("That worker is lost")


def test_a_dead_job_says_its_error():
    dead = job(
        State.DEAD, attempt=5, finished_at=NOW - timedelta(days=2), started_at=NOW, error="cancelled by user"
    )

    assert reasons(dead) == [
        "It is dead since 2026-02-27 12:00:00 UTC, 2 d ago; its last attempt was 5 of 5.",
        "Its error was: cancelled by user",
    ]


def test_a_done_job_says_since_when():
    done = job(State.DONE, attempt=1, max_attempts=FOREVER, finished_at=NOW - timedelta(seconds=20))

    assert reasons(done) == ["It is done since 2026-03-01 11:59:40 UTC, 20 s ago; its last attempt was 1."]


@pytest.mark.parametrize("state", State)
def test_every_state_has_a_reason_even_when_nothing_is_known(state: State):
    found = explain(job(state), NOW)

    assert found.state is state
    assert found.reasons
    assert all(reason[0].isupper() for reason in found.reasons)


ENCODER = replace(WORKER, concurrency=4)
HELD = HeldSlots(3, 2, (SlotHolder(12, "encode", 2), SlotHolder(13, "send", 1)))


def test_a_heavy_job_that_waits_says_how_many_slots_it_needs_and_who_has_them():
    slots = SlotFacts(3, {ENCODER.id: HELD})

    assert reasons(job(State.PENDING), [ENCODER], waiting=waiting(), slots=slots) == [
        "It needs 3 slots of one worker at once, and none has as many free.",
        "1 of the 4 slots of worker shop-worker-1-7 is free: job 12 of kind 'encode' takes 2, job 13 of kind 'send' takes 1.",
    ]


def test_of_many_workers_without_the_slots_for_a_heavy_job_some_are_named():
    held = HeldSlots(
        10, 6, (SlotHolder(12, "encode", 3), SlotHolder(14, "encode", 3), SlotHolder(15, "send", 1))
    )
    full = {n: held for n in range(1, 6)}

    found = reasons(job(State.PENDING), workers(5), waiting=waiting(), slots=SlotFacts(2, full))

    assert found[1] == (
        "None of the 10 slots of worker w1 are free: job 12 of kind 'encode' takes 3, job 14 of kind 'encode' takes 3, "
        "job 15 of kind 'send' takes 1, 3 more jobs 3."
    )
    assert found[4:] == ["2 more workers of its queue lack slots for it."]


def test_a_heavy_job_for_which_a_worker_has_the_slots_waits_for_nothing():
    slots = SlotFacts(3, {1: HeldSlots(9, 9), 2: HeldSlots(7, 7)})

    assert reasons(job(State.PENDING), workers(2), waiting=waiting(), slots=slots) == [
        "Nothing holds it back; the next free worker of its queue takes it."
    ]


def test_a_worker_that_is_full_with_heavy_jobs_is_busy_for_others():
    slots = SlotFacts(1, {ENCODER.id: HeldSlots(4, 1, (SlotHolder(12, "encode", 4),))})

    assert reasons(job(State.PENDING), [replace(ENCODER, in_progress=1)], waiting=waiting(), slots=slots) == [
        "Every worker that could take it is busy: their 4 slots are in use."
    ]


def test_a_heavy_job_that_waits_in_its_worker_says_what_for():
    claimed = job(State.IN_PROGRESS, worker_id=7, worker="shop-worker-1-7", attempt=1, claimed_at=NOW)

    assert reasons(claimed, [ENCODER], slots=SlotFacts(3, {7: HELD}))[-1] == (
        "It needs 3 slots at once, and begins when it has them. 1 of the 4 slots of worker shop-worker-1-7 is free: "
        "job 12 of kind 'encode' takes 2, job 13 of kind 'send' takes 1."
    )
    assert len(reasons(claimed, [ENCODER], slots=SlotFacts(1, {7: HELD}))) == 2
    assert "slots" not in " ".join(reasons(claimed, [ENCODER], slots=SlotFacts(9)))
