"""What a handler says of the attempts that follow failed ones."""

from datetime import timedelta
from typing import Any

import pytest

from forge_jobs import Dead, Forge, InvalidInput, Reschedule, Retries, Retry, Throttled
from forge_jobs.model.job import Claim, End, Postponement, State
from forge_jobs.model.queue import QueueConfig
from forge_jobs.rules.retries import AS_QUEUE
from forge_jobs.rules.verdict import Stop, judge, judge_stopped

QUEUE = QueueConfig("mail", backoff_base=timedelta(seconds=10), backoff_max=timedelta(seconds=100))


class Busy(ConnectionError):
    pass


def middle() -> float:
    return 0.5  # no jitter


def last() -> float:
    return 1.0


def wait(retries: Retries, attempt: int, queue: QueueConfig = QUEUE, random: Any = middle) -> float:
    return retries.wait(queue, attempt, random=random).total_seconds()


def test_what_is_not_said_is_as_the_queue_says() -> None:
    assert [wait(AS_QUEUE, attempt) for attempt in (1, 2, 9)] == [10, 20, 100]
    assert wait(AS_QUEUE, 1, random=last) == 12
    assert wait(Retries(max=15), 2) == 15
    assert wait(Retries(base=timedelta(seconds=1)), 3) == 4


def test_a_base_that_is_longer_than_the_longest_wait_of_the_queue_is_waited_for() -> None:
    assert wait(Retries(base=7200), 1) == 7200
    assert wait(Retries(base=7200), 2) == 7200
    assert wait(Retries(base=7200, max=60), 1) == 60


def test_jitter_moves_the_wait_by_that_share() -> None:
    assert wait(Retries(jitter=0), 1, random=last) == 10
    assert wait(Retries(jitter=1), 1, random=last) == 20
    assert wait(Retries(jitter=0.5), 1, random=lambda: 0.0) == 5


def test_a_base_is_a_backoff_where_the_queue_has_none() -> None:
    off = QueueConfig("mail", backoff_enabled=False)

    assert wait(Retries(), 1, off) == 0
    assert wait(Retries(base=3), 1, off) == 3
    assert wait(Retries(base=0), 1) == 0


def test_an_attempt_after_a_retry_counts_as_the_first_when_it_ran_well_for_long() -> None:
    retries = Retries(reset=3)

    assert retries.counts_as(QUEUE, 1, 10_000) == 1
    assert retries.counts_as(QUEUE, 2, 30) == 2
    assert retries.counts_as(QUEUE, 2, 31) == 1
    assert retries.counts_as(QUEUE, 3, 60) == 3
    assert retries.counts_as(QUEUE, 3, 61) == 1
    assert AS_QUEUE.counts_as(QUEUE, 3, 10_000) == 3


def test_without_a_backoff_no_attempt_is_long() -> None:
    off = QueueConfig("mail", backoff_enabled=False)

    assert Retries(reset=3).counts_as(off, 2, 10_000) == 2


def test_failures_are_warnings_first() -> None:
    assert [Retries(warn=2).is_grave(attempt) for attempt in (1, 2, 3)] == [False, False, True]
    assert not AS_QUEUE.is_grave(1000)


def answer(retries: Retries, error: BaseException, attempt: int = 1) -> Any:
    decision, _ = retries.answer(error, attempt)
    return decision


def test_the_most_special_class_of_an_error_says_what_becomes_of_the_job() -> None:
    retries = Retries(on={OSError: Retry(after=5), ConnectionError: Throttled, PermissionError: Dead})

    assert answer(retries, FileNotFoundError()).after == timedelta(seconds=5)
    assert isinstance(answer(retries, Busy()), Throttled)
    assert isinstance(answer(retries, PermissionError()), Dead)
    assert answer(retries, ValueError()) is None


def test_the_error_is_the_reason_and_one_that_was_said_stands_before_it() -> None:
    retries = Retries(on={ValueError: Dead, KeyError: Dead("no such user"), OSError: Reschedule(after=1)})

    assert answer(retries, ValueError("x")).reason == "ValueError: x"
    assert answer(retries, KeyError("y")).reason == "no such user: KeyError: 'y'"
    assert answer(retries, KeyError("z")).reason == "no such user: KeyError: 'z'"
    assert isinstance(answer(retries, OSError()), Reschedule)


def test_a_function_is_asked_first_and_may_leave_it_to_the_rest() -> None:
    asked = []

    def on_failure(error: BaseException, attempt: int) -> Any:
        asked.append((error, attempt))
        return Dead if attempt == 2 else None

    retries = Retries(on={ValueError: Retry(after=1)}, on_failure=on_failure)
    error = ValueError()

    assert isinstance(answer(retries, error, 1), Retry)
    assert isinstance(answer(retries, error, 2), Dead)
    assert asked == [(error, 1), (error, 2)]


def test_a_function_that_fails_changes_nothing_and_is_told_with_the_error() -> None:
    def broken(error: BaseException, attempt: int) -> Any:
        raise KeyError("oops")

    decision, text = Retries(on_failure=broken).answer(ValueError("x"), 1)
    assert decision is None
    assert text.startswith("ValueError: x\non_failure raised KeyError: 'oops'")

    decision, text = Retries(on_failure=lambda error, attempt: 3).answer(ValueError("x"), 1)  # type: ignore[arg-type,return-value]
    assert decision is None
    assert text == (
        "ValueError: x\non_failure returned 3, allowed is Dead, Retry, Reschedule or Throttled, or an object of one of these."
    )


class Picky(Dead):
    def __init__(self, order: int) -> None:
        super().__init__(f"order {order}")


def test_a_class_that_cannot_be_called_changes_nothing_and_is_told_with_the_error() -> None:
    decision, text = Retries(on_failure=lambda error, attempt: Picky).answer(ValueError("x"), 1)

    assert decision is None
    assert text.startswith("ValueError: x\n")
    assert "Picky" in text and "TypeError" in text
    assert answer(Retries(on={ValueError: Picky(3)}), ValueError("x")).reason == "order 3: ValueError: x"


def test_an_attempt_that_timed_out_never_counts_as_the_first() -> None:
    claim = Claim(1, 2, 3, 3, "work", b"", "json", 0, 0, 3, 100.0, None, 0.0)
    well, late = (
        judge(claim, QUEUE, ValueError(), None, 0.0, 100.0, Retries(reset=1)),
        judge(claim, QUEUE, ValueError(), Stop.TIMED_OUT, 0.0, 100.0, Retries(reset=1)),
    )
    told = judge_stopped(claim, QUEUE, Stop.TIMED_OUT, 0.0, 100.0, Retries(reset=1))

    assert isinstance(well.write, Postponement)
    for verdict in (late, told):
        assert isinstance(verdict.write, End) and verdict.write.state is State.DEAD


async def later(error: BaseException, attempt: int) -> None: ...


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"base": -1}, "Retries.base is -1"),
        ({"max": "1h"}, "Retries.max is '1h'"),
        ({"jitter": 1.5}, "Retries.jitter is 1.5, allowed is a number from 0 to 1."),
        ({"jitter": True}, "Retries.jitter is True"),
        ({"attempts": 0}, "max_attempts is 0, allowed is a whole number from 1"),
        ({"reset": 0}, "Retries.reset is 0, allowed is a number of more than 0."),
        ({"warn": -1}, "Retries.warn is -1, allowed is a whole number of 0 or more."),
        ({"on": [ValueError]}, "allowed is a mapping of exception classes."),
        ({"on": {"ValueError": Dead}}, "Retries.on names 'ValueError', allowed are exception classes."),
        ({"on": {ValueError: "dead"}}, "Retries.on says 'dead' for ValueError, allowed is Dead, Retry,"),
        ({"on": {ValueError: Picky}}, "allowed are classes that can be called without arguments."),
        ({"on_failure": 3}, "on_failure is 3, allowed is a function of the error and the attempt"),
        ({"on_failure": later}, "allowed is a function of the error and the attempt that is not async."),
        (
            {"on_failure": lambda error: None},
            "on_failure takes (error), allowed are the error and the attempt.",
        ),
    ],
)
def test_retries_that_cannot_be_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        Retries(**wrong)
    assert said in str(refusal.value)


async def work() -> None: ...


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"retry": 3}, "retry of handler 'work' is 3, allowed is a Retries."),
        (
            {"retry": Retries(attempts=2), "max_attempts": 3},
            "max_attempts and Retries.attempts are both given, allowed is one of them.",
        ),
        (
            {"retry": Retries(on_failure=lambda error, attempt: None), "on_failure": lambda e, n: None},
            "on_failure and Retries.on_failure are both given, allowed is one of them.",
        ),
        ({"on_failure": "log"}, "on_failure is 'log', allowed is a function"),
    ],
)
def test_what_a_handler_cannot_say_is_refused(declared: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        Forge("sqlite://:memory:").handler(**declared)(work)
    assert said in str(refusal.value)


def test_the_attempts_of_a_handler_are_published_with_its_kind() -> None:
    forge = Forge("sqlite://:memory:")

    assert forge.handler(retry=Retries(attempts=3), kind="three")(work).declared.max_attempts == 3
    assert forge.handler(retry=Retries(attempts=None), kind="endless")(work).declared.max_attempts == 0
    assert forge.handler(retry=Retries(base=1), kind="unsaid")(work).declared.max_attempts is None
