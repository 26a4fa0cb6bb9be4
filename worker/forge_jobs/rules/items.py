"""The items of a job whose payload is a list: what an attempt is given of them, and what becomes of each. Pure.

Once some are done and others are not, the payload is a list of those that are left, with a note before them of those
that are not. Items are known by their places in the list that was enqueued; what is added to it later comes behind.
"""

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import msgspec

from forge_jobs.codecs.plain import decode, encode, opened
from forge_jobs.model.decision import (
    AwaitsTurn,
    Dead,
    Decision,
    ItemsLeft,
    Reschedule,
    Retry,
    Throttled,
    asked,
)
from forge_jobs.model.error_text import describe, sentence
from forge_jobs.model.mask import masked
from forge_jobs.model.moments import as_duration
from forge_jobs.rules.merging import NOTE, is_note
from forge_jobs.rules.outcomes import of_each
from forge_jobs.rules.retries import AS_QUEUE, Retries
from forge_jobs.rules.returned import LONGEST_RESULT, PLAIN, require_run

LONGEST_REASON = 1_000
"""How many characters are kept of why an item was given up."""

MOST_NAMED = 3
"""How many items are named in an error; the others are counted."""

NO_FAILURE = (Throttled, Reschedule, AwaitsTurn)

_RAW: Mapping[str, Any] = {
    "json": msgspec.json.Decoder(list[msgspec.Raw]),
    "msgpack": msgspec.msgpack.Decoder(list[msgspec.Raw]),
}


class Note(msgspec.Struct, omit_defaults=True):
    """What became of the items that are not in the payload any more."""

    of: int = 0  # items that the job has had
    left: list[int] = []  # the places of those that follow
    results: list[tuple[int, Any]] = []  # of those that are done, if they have one, by their places
    given_up: list[tuple[int, Any, str]] = []  # place, item, and why it is not tried again


@dataclass(slots=True)
class Items:
    """What an attempt is given: the items that are left, and the note of the others."""

    stored: list[Any]  # as the payload has them
    note: Note
    codec: str
    size: int  # bytes of the payload
    kind: str = ""
    values: list[Any] = field(default_factory=list)  # as the handler takes them

    @property
    def places(self) -> list[int]:
        """The place of each in the list that was enqueued."""
        left = self.note.left[: len(self.stored)]
        return [*left, *range(self.note.of, self.note.of + len(self.stored) - len(left))]


def read(payload: bytes, codec: str, kind: str = "") -> Items:
    """Return what the payload says. Raises what the codec raises, and ValueError when it is no list."""
    size = len(payload)
    payload, inner = opened(payload, codec, of=kind)
    decoder = _RAW.get(inner)
    stored = decode(payload, inner) if decoder is None else decoder.decode(payload)
    if not isinstance(stored, list):
        raise ValueError(f"Expected `array`, got `{type(stored).__name__}`")
    note = _note(stored[0], inner) if stored else None
    if note is None:
        return Items(stored, Note(), codec, size, kind)
    return Items(stored[1:], note, codec, size, kind)


def _note(first: Any, codec: str) -> Note | None:
    """Return the note that the first entry is; None when it is an item."""
    if isinstance(first, msgspec.Raw):
        if NOTE.encode() not in bytes(first)[:32]:
            return None
        first = decode(bytes(first), codec)
    if is_note(first):
        return msgspec.convert(first[NOTE], Note)
    return None


def judged(items: Items, returned: Any, attempt: int, retries: Retries = AS_QUEUE) -> list[Any] | None:
    """Return the results of all items of the job, in their order; None when none of them has one.

    `returned` is what the handler returned for those of this attempt; `retries` says what becomes of errors. Raises
    ItemsLeft when some have failed, TypeError or ValueError when the handler has not said what became of each.
    """
    note = items.note
    results, given_up = [*note.results], [*note.given_up]
    left: list[tuple[int, Any, BaseException]] = []
    outcomes = [
        _settled(outcome, attempt, retries) for outcome in of_each(returned, len(items.stored), "item")
    ]
    for place, item, outcome in zip(items.places, items.stored, outcomes, strict=True):
        # not isinstance, which asks the object itself: it may raise
        if issubclass(type(outcome), Dead):
            given_up.append((place, item, _said(outcome)[:LONGEST_REASON]))
        elif issubclass(type(outcome), BaseException):
            left.append((place, item, outcome))
        elif outcome is not None:
            results.append((place, outcome))
    count = max([note.of, *(place + 1 for place in items.places)])
    if not left and not given_up:
        by_place = dict(results)
        return [by_place.get(place) for place in range(count)] if by_place else None
    bad = sorted(
        [*((place, why) for place, _, why in given_up), *((place, _said(error)) for place, _, error in left)]
    )
    then = _then([error for _, _, error in left], _reason(bad, count, [error for _, _, error in left]))
    waits = [(place, item) for place, item, _ in left]
    payload = _payload(items, waits, Note(count, results=results, given_up=given_up))
    if not given_up:
        raise ItemsLeft(then, payload, payload)
    # Who retries a dead job wants all items that failed.
    waits = sorted([*waits, *((place, item) for place, item, _ in given_up)], key=lambda one: one[0])
    raise ItemsLeft(then, payload, _payload(items, waits, Note(count, results=results)))


def _payload(items: Items, waits: Sequence[tuple[int, Any]], note: Note) -> bytes | None:
    """Return the payload with the items that wait, by their places; None: it is as it was.

    A result that cannot be kept is left out: another attempt would do its item again.
    """
    note.left = [place for place, _ in waits]
    if note.left == items.places:
        return None
    limit = max(items.size, LONGEST_RESULT)
    rest = [item for _, item in waits]
    # The program's own codecs and types may raise anything.
    with suppress(BaseException):
        return encode([_written(note), *rest], items.codec, limit=limit, of=items.kind)
    note.results = [(place, value) for place, value in note.results if _is_kept(value, items.codec)]
    with suppress(BaseException):
        return encode([_written(note), *rest], items.codec, limit=limit, of=items.kind)
    note.results = []  # too many for one payload
    with suppress(BaseException):
        # The items were taken before.
        return encode([_written(note), *rest], items.codec, limit=sys.maxsize, of=items.kind)
    return None


def without_results(payload: bytes, codec: str, kind: str) -> bytes | None:
    """Return the payload of a job of which items are left, without the results of the others; None: it has none."""
    with suppress(BaseException):
        items = read(payload, codec, kind)
        if items.note.results:
            items.note.results = []
            return encode([_written(items.note), *items.stored], codec, limit=sys.maxsize, of=kind)
    return None


def _written(note: Note) -> dict[str, Any]:
    """Return the note as plain objects, which every codec knows; the results are as the handler returned them."""
    return {NOTE: {name: value for name, value in msgspec.structs.asdict(note).items() if value}}


def _is_kept(value: Any, codec: str) -> bool:
    try:
        encode(value, codec, limit=LONGEST_RESULT)
    except BaseException:
        return False
    return True


def _settled(outcome: Any, attempt: int, retries: Retries) -> Any:
    """Return the outcome of an item, which has failed when its work has not run."""
    if outcome is None or type(outcome) in PLAIN or issubclass(type(outcome), Decision):
        return outcome
    if issubclass(type(outcome), BaseException):
        return retries.answer(outcome, attempt)[0] or outcome
    try:
        require_run(outcome)
    except Retry as unfinished:
        return unfinished
    return outcome


def _then(errors: Sequence[BaseException], reason: str) -> Decision:
    """Return what becomes of the job, of which these items are left."""
    if not errors:
        return Dead(reason)
    if failures := [error for error in errors if not isinstance(error, NO_FAILURE)]:
        waits = [asked(as_duration, error, "after") for error in failures if isinstance(error, Retry)]
        return Retry(_longest(waits), reason)
    if throttled := [error for error in errors if isinstance(error, Throttled)]:
        waits = [asked(as_duration, error, "retry_after") for error in throttled]
        return Throttled(_longest(waits), _said(throttled[0]))
    first = errors[0]
    assert isinstance(first, Decision)
    return first


def _longest(waits: Sequence[timedelta | None]) -> timedelta | None:
    return max((wait for wait in waits if wait is not None), default=None)


def _reason(bad: Sequence[tuple[int, str]], count: int, errors: Sequence[BaseException]) -> str:
    """Return the error of a job of which these items, each with what is said of it, are not done, and their tracebacks."""
    named = "; ".join(f"item {place}: {said}" for place, said in bad[:MOST_NAMED])
    more = f"; and {len(bad) - MOST_NAMED:,} more" if len(bad) > MOST_NAMED else ""
    traces = [describe(error) for error in errors[:MOST_NAMED] if not isinstance(error, Decision)]
    return "\n".join([f"{len(bad):,} of {count:,} items failed: {named}{more}", *traces])


def _said(error: BaseException) -> str:
    reason = describe(error)
    if isinstance(error, Decision):
        own = asked(lambda given, _: str(given), error, "reason")
        reason = sentence(error) if own is None else masked(own)
    return reason.partition("\n")[0]
