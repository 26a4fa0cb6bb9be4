"""What becomes of the items of one job, and of the job."""

import json
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import pytest
from msgspec import Raw

from forge_jobs import Dead, Retries, Retry
from forge_jobs.codecs.plain import decode, register
from forge_jobs.model.decision import ItemsLeft
from forge_jobs.model.job import CANCELLED_BY_USER, Claim, End, Postponement, State
from forge_jobs.model.queue import QueueConfig
from forge_jobs.rules.items import judged, read
from forge_jobs.rules.merging import apart
from forge_jobs.rules.retries import AS_QUEUE
from forge_jobs.rules.returned import LONGEST_RESULT
from forge_jobs.rules.verdict import Stop, Verdict, judge

QUEUE = QueueConfig("mail")


def claim(attempt: int = 1, max_attempts: int = 5) -> Claim:
    return Claim(1, 2, attempt, 3, "notify", b"", "json", 0, 0, max_attempts, None, None, 0.0)


def left(payload: bytes, returned: Any) -> ItemsLeft:
    with pytest.raises(ItemsLeft) as raised:
        judged(read(payload, "json"), returned, 1)
    return raised.value


def after(error: ItemsLeft, one: Claim, stopped: Stop | None = None, retries: Retries = AS_QUEUE) -> Verdict:
    return judge(one, QUEUE, error, stopped, 0.0, 10_000.0, retries)


def test_a_payload_of_items_is_read_as_it_was_written() -> None:
    items = read(b'[1.10, {"a":  2}]', "json")

    assert [bytes(item) for item in items.stored] == [b"1.10", b'{"a":  2}']
    assert items.places == [0, 1]


def test_items_that_were_added_stand_behind_those_that_are_left() -> None:
    note = b'{"forge_jobs.items":{"of":4,"left":[1,3],"results":[[0,"a"],[2,"c"]]}}'

    assert read(b"[%s,1,3,7,8]" % note, "json").places == [1, 3, 4, 5]
    assert judged(read(b"[%s,1,3,7]" % note, "json"), ["b", None, "e"], 2) == ["a", "b", "c", None, "e"]


@pytest.mark.parametrize("payload", [b"{}", b"3", b'"[]"', b"["])
def test_what_is_no_list_cannot_be_read(payload: bytes) -> None:
    with pytest.raises(Exception, match=r"Expected `array`|end of data|truncated"):
        read(payload, "json")


def test_when_no_item_is_done_the_payload_stays_as_it_is() -> None:
    error = left(b"[1,2]", [ValueError(), OSError()])

    assert (error.payload, error.if_dead) == (None, None)


def test_the_payload_of_a_dead_job_has_the_items_that_were_given_up_too() -> None:
    error = left(b"[1,2,3]", [Dead("never"), "done", ValueError()])

    assert error.payload is not None and error.if_dead is not None
    assert decode(error.payload)[1:] == [3]
    assert decode(error.payload)[0]["forge_jobs.items"]["given_up"] == [[0, 1, "never"]]
    assert decode(error.if_dead)[1:] == [1, 3]
    assert "given_up" not in decode(error.if_dead)[0]["forge_jobs.items"]


def test_which_payload_a_job_has_depends_on_what_becomes_of_it() -> None:
    error = left(b"[1,2,3]", [Dead("never"), "done", ValueError()])

    retried, last, cancelled = (
        after(error, claim()).write,
        after(error, claim(attempt=5)).write,
        after(error, claim(), Stop.CANCELLED).write,
    )

    assert isinstance(retried, Postponement) and retried.payload == error.payload
    assert isinstance(last, End) and last.payload == error.if_dead
    assert isinstance(cancelled, End) and cancelled.payload == error.if_dead
    assert (cancelled.state, cancelled.error) == (State.DEAD, CANCELLED_BY_USER)


def test_an_attempt_that_counts_as_the_first_leaves_given_up_items_alone() -> None:
    error = left(b"[1,2]", [Dead("never"), ValueError()])

    anew = after(error, claim(attempt=5), retries=Retries(reset=1)).write

    assert isinstance(anew, Postponement)
    assert (anew.attempts, anew.payload) == (1, error.payload)


def test_a_wait_that_is_asked_for_is_that_of_the_job() -> None:
    verdict = after(left(b"[1,2]", [Retry(after=5), Retry(after=60)]), claim())

    assert isinstance(verdict.write, Postponement)
    assert verdict.write.delay == timedelta(seconds=60)
    assert verdict.run.error is not None
    assert verdict.run.error.startswith(
        "2 of 2 items failed: item 0: retry asked for by its handler; item 1: "
    )


class Plain:
    """A codec of a program's own, which knows plain objects."""

    def encode(self, value: Any) -> bytes:
        return json.dumps(value).encode()

    def decode(self, payload: bytes) -> Any:
        return json.loads(payload)


def test_a_codec_of_a_program_keeps_what_is_done_and_only_results_that_it_knows() -> None:
    register("own", Plain())

    with pytest.raises(ItemsLeft) as raised:
        judged(read(b"[1,2,3,4]", "own"), ["a", {7}, Dead("never"), ValueError()], 1)

    assert raised.value.payload is not None
    again = read(raised.value.payload, "own")
    assert (again.stored, again.places) == ([4], [3])
    assert again.note.results == [(0, "a")]
    assert again.note.given_up == [(2, 3, "never")]


def test_what_is_left_of_a_long_payload_may_be_long() -> None:
    item = b'"' + b"x" * LONGEST_RESULT + b'"'

    error = left(b'["small",%s]' % item, [None, ValueError()])

    assert error.payload is not None
    assert read(error.payload, "json").places == [1]


def test_of_a_long_reason_the_beginning_is_kept() -> None:
    error = left(b"[1,2]", [Dead("x" * 5000), ValueError()])

    assert error.payload is not None
    assert read(error.payload, "json").note.given_up == [(0, 1, "x" * 1000)]


class Unseen:
    """Raises when it is looked at."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("unseen")


class Vague(Retry):
    def __init__(self) -> None: ...


class Unmade(Exception):
    def __new__(cls, *given: object) -> "Unmade":
        raise RuntimeError("never")


def test_an_exception_class_that_wants_arguments_is_the_outcome_of_its_item_alone() -> None:
    error = left(b"[1,2,3]", ["done", json.JSONDecodeError, Unmade])

    assert error.payload is not None
    again = read(error.payload, "json")
    assert (again.places, again.note.results) == ([1, 2], [(0, "done")])
    assert "JSONDecodeError" in str(error.then)
    assert "returned the class Unmade, which cannot be made without arguments" in str(error.then)


def test_outcomes_of_a_programs_own_types_leave_the_others_alone() -> None:
    error = left(b"[1,2,3]", ["done", Unseen(), Vague()])

    assert error.payload is not None
    again = read(error.payload, "json")
    assert (again.places, again.note.results) == ([2], [(0, "done")])


class Interrupted(Mapping[str, Any]):
    """What is looked at when somebody presses Ctrl-C."""

    def __getitem__(self, key: str) -> Any:
        raise KeyboardInterrupt

    def __iter__(self) -> Iterator[str]:
        raise KeyboardInterrupt

    def __len__(self) -> int:
        raise KeyboardInterrupt


def test_an_interruption_is_not_taken_for_an_item() -> None:
    with pytest.raises(KeyboardInterrupt):
        apart([Interrupted()])


@pytest.mark.parametrize("first", [{"forge_jobs.items": 1}, Raw(b' {"forge_jobs.items":1}')])
def test_only_a_first_item_that_would_be_read_as_a_note_has_one_before_it(first: Any) -> None:
    assert apart([first]) == [{"forge_jobs.items": {}}, first]
    assert apart([1, first]) == [1, first]
    assert apart([{"forge_jobs.items": 1, "b": 2}]) == [{"forge_jobs.items": 1, "b": 2}]
