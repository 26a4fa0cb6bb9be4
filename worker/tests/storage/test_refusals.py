"""What is refused is refused by both databases, in one sentence."""

import math
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import forge_jobs.storage
from forge_jobs.errors import ForgeError, InvalidInput, JobNotFound, Managed, WrongState
from forge_jobs.model.job import State
from forge_jobs.storage.interface.storage import Storage
from tests.storage.factories import NOBODY, cron, ended, enqueue, job, running, worker

HOUR = timedelta(hours=1)
LONG = "a" * 513
NAME = "allowed are 1 to 128 printable characters without spaces and commas."
KEY = "allowed are 1 to 512 characters of text."
WHOLE = "allowed is a whole number from"
DURATION = "allowed is zero to 365,000 days."
BUCKET = "allowed are a capacity above 0 and a refill of 0 or more."

Refused = Callable[[Storage], Awaitable[Any]]


@pytest.fixture
async def jobs(storage: Storage) -> dict[str, int]:
    """A job in each state, by the state's name, and one that is not there."""
    me = await worker(storage)
    return {
        "done": await ended(storage, me, State.DONE),
        "dead": await ended(storage, me, State.DEAD),
        "in_progress": (await running(storage, me)).job_id,
        "pending": await enqueue(storage),
        "scheduled": await enqueue(storage, delay=HOUR),
        "nowhere": 999,
    }


@pytest.fixture
async def configured(storage: Storage) -> None:
    """Queues, rate limits and crons, some of which belong to somebody."""
    await storage.queues.ensure(["free", "busy"])
    await storage.queues.set("theirs", {}, managed_by="an operator")
    await storage.limits.set("smtp", capacity=1, refill=1)
    await storage.limits.set("their-smtp", capacity=1, refill=1, managed_by="an operator")
    await storage.crons.set(cron("nightly", queue="busy"))
    await storage.crons.set(cron("theirs", queue="theirs"), managed_by="an operator")
    await storage.crons.set(cron("their-other", queue="default"), managed_by="an operator")


async def refusal(refused: Awaitable[Any]) -> ForgeError:
    with pytest.raises(ForgeError) as caught:
        await refused
    return caught.value


@pytest.mark.parametrize("state", ["pending", "scheduled", "in_progress", "done"])
async def test_what_cannot_be_retried_is_said(storage, jobs, state):
    error = await refusal(storage.jobs.retry(jobs[state]))

    assert isinstance(error, WrongState)
    assert str(error) == f"Job {jobs[state]} is {state}; only a dead or retrying job can be retried."


@pytest.mark.parametrize("state", ["in_progress", "done", "dead"])
async def test_what_cannot_be_run_now_is_said(storage, jobs, state):
    error = await refusal(storage.jobs.run_now(jobs[state]))

    assert isinstance(error, WrongState)
    assert str(error) == f"Job {jobs[state]} is {state}; only a scheduled or retrying job can be run now."


async def test_a_running_job_cannot_be_deleted_and_what_to_do_is_said(storage, jobs):
    error = await refusal(storage.jobs.delete(jobs["in_progress"]))

    assert isinstance(error, WrongState)
    assert (
        str(error) == f"Job {jobs['in_progress']} is in_progress; cancel it, and delete it when it has ended."
    )


@pytest.mark.parametrize("move", ["get", "cancel", "retry", "run_now", "delete", "waiting"])
async def test_a_job_that_is_not_there_is_said(storage, jobs, move):
    error = await refusal(getattr(storage.jobs, move)(jobs["nowhere"]))

    assert isinstance(error, JobNotFound)
    assert str(error) == "There is no job 999."


REFUSED_JOBS: list[tuple[dict[str, Any], str]] = [
    ({"key": "a\0b"}, f"The key is 'a\\x00b', {KEY}"),
    ({"key": "\ud800"}, f"The key is '\\ud800', {KEY}"),
    ({"key": ""}, f"The key is '', {KEY}"),
    ({"key": LONG}, f"The key is '{LONG[:199]}… (515 characters), {KEY}"),
    ({"kind": "a\0b"}, f"The kind is 'a\\x00b', {NAME}"),
    ({"kind": "\ud800"}, f"The kind is '\\ud800', {NAME}"),
    ({"queue": "a\0b"}, f"The queue is 'a\\x00b', {NAME}"),
    ({"codec": "a\0b"}, f"The codec is 'a\\x00b', {NAME}"),
    ({"priority": 40_000}, f"The priority is 40000, {WHOLE} -32768 to 32767."),
    (
        {"max_attempts": 2**31},
        f"max_attempts is 2147483648, {WHOLE} 1 (no retry) to 2147483647, or None for ever.",
    ),
    ({"delay": timedelta.max}, f"delay is {timedelta.max!r}, {DURATION}"),
    ({"timeout": timedelta.max}, f"timeout is {timedelta.max!r}, {DURATION}"),
    ({"queue": "nowhere"}, "There is no queue 'nowhere'; queues: default."),
]


@pytest.mark.parametrize("others", [None, 1, 300], ids=["alone", "in a batch", "in a large batch"])
async def test_a_job_that_cannot_be_stored_is_refused_alone_and_in_every_batch(storage, others):
    for facts, sentence in REFUSED_JOBS:
        bad = job(**facts)
        refused = (
            storage.jobs.enqueue(bad)
            if others is None
            else storage.jobs.enqueue_many([*[job()] * others, bad])
        )

        error = await refusal(refused)

        assert isinstance(error, InvalidInput)
        assert str(error) == sentence
        assert await storage.jobs.newest() == 0


REFUSED_CHANGES: list[tuple[dict[str, Any], str]] = [
    (
        {"colour": "red", "paused": True},
        "A queue has no 'colour' to set, allowed is one of age_after, backoff_base, backoff_enabled, backoff_max, "
        "concurrency, dead_retention, done_retention, group_limit, max_attempts, pause_reason, paused, paused_until, rate_limit, timeout.",
    ),
    ({"concurrency": -1}, f"concurrency of queue 'default' is -1, {WHOLE} 0 to 2147483647."),
    ({"concurrency": 2**31}, f"concurrency of queue 'default' is 2147483648, {WHOLE} 0 to 2147483647."),
    ({"group_limit": 0}, f"group_limit of queue 'default' is 0, {WHOLE} 1 to 1,000."),
    ({"max_attempts": -1}, f"max_attempts of queue 'default' is -1, {WHOLE} 0 to 2147483647."),
    (
        {"timeout": timedelta(0)},
        "timeout of queue 'default' is datetime.timedelta(0), allowed is more than 0 s.",
    ),
    (
        {"age_after": timedelta(0)},
        "age_after of queue 'default' is datetime.timedelta(0), allowed is more than 0 s.",
    ),
    ({"backoff_base": -HOUR}, f"backoff_base of queue 'default' is {-HOUR!r}, {DURATION}"),
    (
        {"done_retention": timedelta.max},
        f"done_retention of queue 'default' is {timedelta.max!r}, {DURATION}",
    ),
    ({"rate_limit": "a\0b"}, f"The rate limit is 'a\\x00b', {NAME}"),
]


async def test_a_change_that_no_queue_takes_is_refused(storage):
    [before] = await storage.queues.all()

    for changes, sentence in REFUSED_CHANGES:
        error = await refusal(storage.queues.set("default", changes))

        assert isinstance(error, InvalidInput)
        assert str(error) == sentence
        assert await storage.queues.all() == [before]


@pytest.mark.parametrize("name", ["", "white space", "a,b", "a\0b", "\ud800", "a" * 129])
async def test_a_name_that_no_queue_may_have_is_refused_alone_and_among_others(storage, name):
    sentence = f"The queue is {name!r}, {NAME}"

    assert str(await refusal(storage.queues.set(name, {}))) == sentence
    assert str(await refusal(storage.queues.ensure(["mail", name]))) == sentence
    assert [queue.name for queue in await storage.queues.all()] == ["default"]


@pytest.mark.parametrize("name", ["", "white space", "a,b", "a\0b", "\ud800", "a" * 129])
async def test_a_name_that_no_rate_limit_and_no_cron_may_have_is_refused(storage, name):
    limit = f"The rate limit is {name!r}, {NAME}"

    assert str(await refusal(storage.limits.set(name, capacity=1, refill=1))) == limit
    assert str(await refusal(storage.limits.ensure(name, capacity=1, refill=1))) == limit
    assert str(await refusal(storage.crons.set(cron(name)))) == f"The cron is {name!r}, {NAME}"
    assert str(await refusal(storage.crons.ensure(cron(name)))) == f"The cron is {name!r}, {NAME}"


NO_BUCKETS = [
    (0, 1),
    (-1, 1),
    (1, -1),
    (math.inf, 1),
    (math.nan, 1),
    (1, math.inf),
    (1, math.nan),
]


async def test_a_bucket_that_cannot_be_filled_is_refused(storage):
    for capacity, refill in NO_BUCKETS:
        sentence = f"Rate limit 'smtp' is given capacity {capacity:g} and refill {refill:g}, {BUCKET}"

        assert str(await refusal(storage.limits.set("smtp", capacity=capacity, refill=refill))) == sentence
        assert str(await refusal(storage.limits.ensure("smtp", capacity=capacity, refill=refill))) == sentence
    assert await storage.limits.all() == []


REFUSED_CRONS: list[tuple[dict[str, Any], str]] = [
    ({"missed_limit": 0}, f"missed_limit of cron 'nightly' is 0, {WHOLE} 1 to 2147483647."),
    ({"missed_limit": 2**31}, f"missed_limit of cron 'nightly' is 2147483648, {WHOLE} 1 to 2147483647."),
    ({"priority": 40_000}, f"The priority is 40000, {WHOLE} -32768 to 32767."),
    ({"kind": "a\0b"}, f"The kind is 'a\\x00b', {NAME}"),
    ({"queue": "nowhere"}, "There is no queue 'nowhere'; queues: default."),
]


async def test_a_cron_that_cannot_be_stored_is_refused(storage):
    for facts, sentence in REFUSED_CRONS:
        assert str(await refusal(storage.crons.set(cron(**facts)))) == sentence
        assert str(await refusal(storage.crons.ensure(cron(**facts)))) == sentence
    assert await storage.crons.all() == []


QUEUES = "queues: busy, default, free, theirs."
LIMITS = "rate limits: smtp, their-smtp."
CRONS = "crons: nightly, their-other, theirs."


async def transfer(storage: Storage) -> None:
    async for _ in storage.removals.empty("default", State.PENDING, last=10, into="nowhere"):
        pass


NOT_THERE_OR_IN_USE: list[tuple[Refused, str]] = [
    (lambda on: on.queues.manage("nowhere", "me"), f"There is no queue 'nowhere'; {QUEUES}"),
    (lambda on: on.removals.close("nowhere"), f"There is no queue 'nowhere'; {QUEUES}"),
    (lambda on: on.removals.close("busy", crons_to="nowhere"), f"There is no queue 'nowhere'; {QUEUES}"),
    (transfer, f"There is no queue 'nowhere'; {QUEUES}"),
    (lambda on: on.limits.delete("nowhere"), f"There is no rate limit 'nowhere'; {LIMITS}"),
    (lambda on: on.tokens.lease("nowhere", 1), f"There is no rate limit 'nowhere'; {LIMITS}"),
    (lambda on: on.tokens.empty("nowhere"), f"There is no rate limit 'nowhere'; {LIMITS}"),
    (lambda on: on.crons.get("nowhere"), f"There is no cron 'nowhere'; {CRONS}"),
    (lambda on: on.crons.trigger("nowhere"), f"There is no cron 'nowhere'; {CRONS}"),
    (lambda on: on.crons.delete("nowhere"), f"There is no cron 'nowhere'; {CRONS}"),
    (lambda on: on.owners.dismiss("nobody"), "'nobody' manages nothing; owners: an operator."),
    (
        lambda on: on.workers.beat(NOBODY),
        "Worker 1 is lost: it was not heard from for too long.",
    ),
    (
        lambda on: on.removals.close("busy"),
        "Queue 'busy' was not deleted: cron 'nightly' enqueues to it.",
    ),
    (
        lambda on: on.queues.set("free", {}, epoch=99),
        "Epoch 99 is not the present one: another operator has taken over.",
    ),
]


async def test_what_is_not_there_or_in_use_is_said(storage, configured):
    for refused, sentence in NOT_THERE_OR_IN_USE:
        assert str(await refusal(refused(storage))) == sentence


OF_SOMEBODY: list[tuple[Refused, str]] = [
    (lambda on: on.queues.set("theirs", {"paused": True}), "Queue 'theirs'"),
    (lambda on: on.queues.set("theirs", {"paused": True}, managed_by="me"), "Queue 'theirs'"),
    (lambda on: on.removals.close("theirs"), "Queue 'theirs'"),
    (lambda on: on.removals.close("default", drop_crons=True), "Cron 'their-other'"),
    (lambda on: on.limits.set("their-smtp", capacity=2, refill=2), "Rate limit 'their-smtp'"),
    (lambda on: on.limits.delete("their-smtp"), "Rate limit 'their-smtp'"),
    (lambda on: on.crons.set(cron("theirs")), "Cron 'theirs'"),
    (lambda on: on.crons.delete("theirs"), "Cron 'theirs'"),
]


async def test_what_belongs_to_somebody_is_left_and_who_it_is_is_said(storage, configured):
    for refused, what in OF_SOMEBODY:
        error = await refusal(refused(storage))

        assert isinstance(error, Managed)
        assert str(error) == f"{what} is managed by an operator; change it there."


async def test_a_database_that_is_not_open_is_said(database):
    storage = database.storage()

    for call in (storage.jobs.newest(), storage.jobs.enqueue(job())):
        assert re.fullmatch(
            r"The database \S+ is not open; open it around the call: async with forge: .*",
            str(await refusal(call)),
        )


def test_no_database_has_a_sentence_of_its_own_for_what_both_refuse():
    own = r"raise (?:WrongState|Managed)\(|A queue has no|refuses a value:|is not open;|is given capacity"
    [storage] = forge_jobs.storage.__path__

    found = [
        f"{path.parent.name}/{path.name}: {line.strip()}"
        for folder in ("postgres", "sqlite")
        for path in sorted((Path(storage) / folder).glob("*.py"))
        for line in path.read_text().splitlines()
        if re.search(own, line)
    ]

    assert found == []
