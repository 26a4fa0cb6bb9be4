"""The items of one job are done in one call, and each has an outcome of its own."""

import asyncio
import re
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import pytest

from forge_jobs import (
    Batch,
    Context,
    Dead,
    Encoded,
    Forge,
    InvalidInput,
    InvalidPayload,
    Job,
    JobDead,
    Reschedule,
    Retry,
    State,
    Throttled,
    UnfitPayload,
    Unique,
)
from forge_jobs.codecs.plain import decode
from forge_jobs.model.job import Reason
from tests.working.eventually import eventually
from tests.working.running import working


@dataclass
class Mail:
    to: str
    day: date = date(2030, 1, 1)


async def judged(forge: Forge, job_id: int) -> Job:
    """Return the job once an attempt has an outcome that is written."""

    async def job() -> Job | None:
        found = await forge.jobs.get(job_id)
        return None if found.state in (State.PENDING, State.IN_PROGRESS) else found

    found: Job = await eventually(job)
    return found


async def retried_at_once(forge: Forge) -> None:
    await forge.queues.set("default", backoff_enabled=False)


async def test_all_items_are_done_in_one_call_and_each_has_a_result(forge: Forge) -> None:
    calls: list[list[Mail]] = []

    @forge.batch_handler
    async def notify(ctx: Context, mails: list[Mail]) -> list[str]:
        calls.append(mails)
        return [f"{ctx.attempt}: {mail.to}" for mail in mails]

    job = await notify.enqueue(mails=[Mail("ann", date(2031, 2, 3)), Mail("bob")])
    async with working(forge):
        assert await forge.wait(job, timeout=30) == ["1: ann", "1: bob"]

    assert calls == [[Mail("ann", date(2031, 2, 3)), Mail("bob")]]
    assert (await forge.jobs.get(job.id)).payload == (
        b'[{"to":"ann","day":"2031-02-03"},{"to":"bob","day":"2030-01-01"}]'
    )


async def test_none_says_that_all_items_are_done(forge: Forge) -> None:
    @forge.batch_handler
    async def notify(mails: list[str]) -> None: ...

    job = await notify.enqueue(mails=["ann"])
    async with working(forge):
        assert await forge.wait(job, timeout=30) is None


async def test_a_plain_function_does_the_items_in_a_thread(forge: Forge) -> None:
    await retried_at_once(forge)

    @forge.batch_handler
    def double(ctx: Context, numbers: list[int]) -> list[object]:
        return [2 * number if number != ctx.attempt else ValueError("later") for number in numbers]

    job = await double.enqueue(numbers=[1, 2, 3])
    async with working(forge):
        assert await forge.wait(job, timeout=30) == [2, 4, 6]


@pytest.mark.parametrize("codec", ["json", "msgpack"])
async def test_only_the_items_that_failed_are_tried_again_and_all_results_are_there_in_the_end(
    forge: Forge, codec: str
) -> None:
    await retried_at_once(forge)
    calls: list[list[str]] = []

    @forge.batch_handler(codec=codec)
    async def notify(mails: list[str]) -> list[Any]:
        calls.append(mails)
        bad = {1: {"bob", "dan"}, 2: {"dan"}}.get(len(calls), set())
        return [ValueError(f"no {mail}") if mail in bad else f"{mail} in call {len(calls)}" for mail in mails]

    job = await notify.enqueue(mails=["ann", "bob", "cid", "dan"])
    async with working(forge):
        assert await forge.wait(job, timeout=30) == [
            "ann in call 1",
            "bob in call 2",
            "cid in call 1",
            "dan in call 3",
        ]

    assert calls == [["ann", "bob", "cid", "dan"], ["bob", "dan"], ["dan"]]
    done = await forge.jobs.get(job.id)
    assert [failure.error.partition("\n")[0] for failure in done.failures] == [
        "2 of 4 items failed: item 1: ValueError: no bob; item 3: ValueError: no dan",
        "1 of 4 items failed: item 3: ValueError: no dan",
    ]
    assert "in notify" not in done.failures[0].error  # an exception that was returned has no traceback


async def test_while_items_are_left_the_payload_is_those_with_a_note_of_the_others(forge: Forge) -> None:
    @forge.batch_handler
    async def notify(mails: list[Mail]) -> list[Any]:
        return [{"sent": mail.to} if mail.to == "ann" else OSError(mail.to) for mail in mails]

    job = await forge.enqueue("notify", [{"to": "ann"}, {"to": "bob"}])
    async with working(forge):
        left = await judged(forge, job.id)

    assert (left.state, left.attempt) == (State.RETRYING, 1)
    assert decode(left.payload) == [
        {"forge_jobs.items": {"of": 2, "left": [1], "results": [[0, {"sent": "ann"}]]}},
        {"to": "bob"},
    ]
    why = await forge.jobs.why(job.id)
    assert "Its last error was: 1 of 2 items failed: item 1: OSError: bob" in why.reasons


async def test_more_than_three_failures_are_counted(forge: Forge) -> None:
    @forge.batch_handler
    async def notify(mails: list[int]) -> list[Any]:
        return [ValueError(mail) if mail else None for mail in mails]

    job = await notify.enqueue(mails=[0, 1, 2, 3, 4, 5])
    async with working(forge):
        failed = await judged(forge, job.id)

    assert (failed.error or "").partition("\n")[0] == (
        "5 of 6 items failed: item 1: ValueError: 1; item 2: ValueError: 2; item 3: ValueError: 3; and 2 more"
    )


async def test_an_item_that_is_given_up_is_not_tried_again_and_its_job_is_dead_when_no_other_is_left(
    forge: Forge,
) -> None:
    await retried_at_once(forge)
    calls: list[list[str]] = []

    @forge.batch_handler
    async def notify(mails: list[str]) -> list[Any]:
        calls.append(mails)
        outcomes = {"ann": "sent", "bob": Dead("no such address"), "cid": OSError("busy"), "dan": Dead}
        return ["sent"] if len(calls) == 2 else [outcomes[mail] for mail in mails]

    job = await notify.enqueue(mails=["ann", "bob", "cid", "dan"])
    async with working(forge):
        with pytest.raises(
            JobDead,
            match=r"2 of 4 items failed: item 1: no such address; item 3: given up by its handler",
        ):
            await forge.wait(job, timeout=30)

    assert calls == [["ann", "bob", "cid", "dan"], ["cid"]]
    dead = await forge.jobs.get(job.id)
    note, *items = decode(dead.payload)
    assert items == ["bob", "dan"]
    assert note == {"forge_jobs.items": {"of": 4, "left": [1, 3], "results": [[0, "sent"], [2, "sent"]]}}


async def test_a_dead_job_is_retried_with_its_failed_items_only(forge: Forge) -> None:
    calls: list[list[str]] = []
    is_up = False

    @forge.batch_handler(max_attempts=1)
    async def notify(mails: list[str]) -> list[Any]:
        calls.append(mails)
        return [mail if is_up or mail == "ann" else OSError("down") for mail in mails]

    job = await notify.enqueue(mails=["ann", "bob"])
    async with working(forge):
        assert (await judged(forge, job.id)).state is State.DEAD
        is_up = True
        await forge.jobs.retry(job.id)
        assert await forge.wait(job, timeout=30) == ["ann", "bob"]

    assert calls == [["ann", "bob"], ["bob"]]


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (["one"], "returned 1 outcomes for 2 items"),
        (
            {1: 2},
            "a batch of 2 items returned a dict, allowed is a list with an outcome for each item, or None",
        ),
    ],
)
async def test_a_call_that_returns_something_else_fails_all_items(
    forge: Forge, returned: Any, said: str
) -> None:
    @forge.batch_handler
    async def notify(mails: list[str]) -> Any:
        return returned

    job = await notify.enqueue(mails=["ann", "bob"])
    async with working(forge):
        failed = await judged(forge, job.id)

    assert (failed.state, failed.payload) == (State.RETRYING, b'["ann","bob"]')
    assert said in (failed.error or "")


async def test_a_call_that_raises_fails_all_items(forge: Forge) -> None:
    @forge.batch_handler
    async def notify(mails: list[str]) -> None:
        raise Dead("closed for ever")

    job = await notify.enqueue(mails=["ann", "bob"])
    async with working(forge):
        dead = await judged(forge, job.id)
    assert (dead.state, dead.error, dead.payload) == (State.DEAD, "closed for ever", b'["ann","bob"]')


async def test_the_longest_wait_that_an_item_asks_for_is_that_of_the_job(forge: Forge) -> None:
    @forge.batch_handler
    async def notify(mails: list[str]) -> list[Any]:
        return [Retry(after=60), Retry(after=timedelta(hours=2)), ValueError(), "sent"]

    job = await notify.enqueue(mails=["ann", "bob", "cid", "dan"])
    async with working(forge):
        failed = await judged(forge, job.id)

    assert failed.state is State.RETRYING
    assert failed.run_at is not None
    assert timedelta(minutes=119) < failed.run_at - await forge.storage.now() <= timedelta(hours=2)


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [(Throttled(retry_after=3600), Reason.THROTTLED), (Reschedule(after=3600), Reason.RESCHEDULED)],
    ids=str,
)
async def test_items_that_only_have_to_wait_cost_no_attempt(
    forge: Forge, outcome: Exception, reason: Reason
) -> None:
    @forge.batch_handler
    async def notify(mails: list[str]) -> list[Any]:
        return ["sent", outcome]

    job = await notify.enqueue(mails=["ann", "bob"])
    async with working(forge):
        waits = await judged(forge, job.id)

    assert (waits.state, waits.reason, waits.attempt) == (State.SCHEDULED, reason, 0)
    assert decode(waits.payload)[1:] == ["bob"]


async def test_a_result_that_cannot_be_kept_is_left_out_and_its_item_is_not_done_again(forge: Forge) -> None:
    await retried_at_once(forge)
    calls: list[list[str]] = []

    @forge.batch_handler
    async def notify(mails: list[str]) -> list[Any]:
        calls.append(mails)
        return [object(), "sent", OSError("busy")] if len(calls) == 1 else ["late"]

    job = await notify.enqueue(mails=["ann", "bob", "cid"])
    async with working(forge):
        assert await forge.wait(job, timeout=30) == [None, "sent", "late"]
    assert calls == [["ann", "bob", "cid"], ["cid"]]


async def test_an_item_whose_outcome_has_not_run_has_failed(forge: Forge) -> None:
    async def send(mail: str) -> None: ...

    @forge.batch_handler
    async def notify(mails: list[str]) -> list[Any]:
        later = asyncio.ensure_future(asyncio.Event().wait())
        unfinished.append(later)
        return ["sent", later]

    unfinished: list[asyncio.Future[Any]] = []
    job = await notify.enqueue(mails=["ann", "bob"])
    async with working(forge):
        failed = await judged(forge, job.id)
        unfinished[0].cancel()
    assert "1 of 2 items failed: item 1: The handler returned what still runs" in (failed.error or "")


async def test_a_list_without_items_is_done_without_a_call(forge: Forge) -> None:
    @forge.batch_handler
    async def notify(mails: list[str]) -> None:
        raise AssertionError

    job = await forge.enqueue("notify", Encoded(b"[]"))
    async with working(forge):
        assert await forge.wait(job, timeout=30) is None


async def test_an_item_that_does_not_fit_fails_all_of_them(forge: Forge) -> None:
    @forge.batch_handler
    async def notify(numbers: list[int]) -> None: ...

    job = await forge.enqueue("notify", Encoded(b'[1,2,"x"]'))
    async with working(forge):
        failed = await judged(forge, job.id)
    assert failed.state is State.RETRYING
    assert "is refused: item 2: Expected `int`, got `str`" in (failed.error or "")


async def test_items_that_are_added_under_the_key_are_done_with_those_that_are_left(forge: Forge) -> None:
    calls: list[list[str]] = []

    @forge.batch_handler
    async def notify(mails: list[str]) -> list[Any]:
        calls.append(mails)
        return [OSError("busy") if mail == "bob" and len(calls) == 1 else mail for mail in mails]

    adding = notify.options(key="today", key_mode="merge")
    job = await adding.enqueue(mails=["ann"])
    assert (await adding.enqueue(mails=["bob"])).id == job.id
    async with working(forge):
        await judged(forge, job.id)
        added = await forge.enqueue("notify", ["cid"], key="today", key_mode="merge")
        assert (added.id, added.replaced) == (job.id, True)
        assert await forge.wait(job, timeout=30) == ["ann", "bob", "cid"]
    assert calls == [["ann", "bob"], ["bob", "cid"]]


async def test_lists_are_enqueued_by_name_and_many_at_once(forge: Forge) -> None:
    made = await forge.enqueue_many("notify", [["ann"], ["bob", "cid"]])
    assert [(await forge.jobs.get(job.id)).payload for job in made] == [b'["ann"]', b'["bob","cid"]']

    @forge.batch_handler
    async def notify(mails: list[str]) -> None: ...

    made = await notify.enqueue_many([["ann"], {"mails": ["bob"]}])
    assert [(await forge.jobs.get(job.id)).payload for job in made] == [b'["ann"]', b'["bob"]']


async def test_what_lists_say_makes_them_unique_and_gives_them_groups(forge: Forge) -> None:
    @forge.batch_handler(unique=Unique(), group=lambda mails: f"to {mails[0]}")
    async def notify(mails: list[str]) -> None: ...

    first = await notify.enqueue(mails=["ann", "bob"])

    assert (await forge.enqueue("notify", ["ann", "bob"])).id == first.id
    assert (await notify.enqueue(mails=["ann"])).is_new
    assert [group.name for group in (await forge.jobs.get(first.id)).groups] == ["to ann"]


NOTED = {"forge_jobs.items": {"of": 1, "results": [[0, "paid"]]}}


@pytest.mark.parametrize("codec", ["json", "msgpack"])
async def test_an_item_that_looks_like_a_note_is_an_item(forge: Forge, codec: str) -> None:
    await retried_at_once(forge)
    calls: list[list[Any]] = []

    @forge.batch_handler(codec=codec)
    async def pay(bills: list[dict[str, Any]]) -> list[Any]:
        calls.append(bills)
        return [OSError("busy") if len(calls) == 1 else "now" for _ in bills]

    job = await pay.enqueue(bills=[NOTED, {"to": "ann"}])
    async with working(forge):
        assert await forge.wait(job, timeout=30) == ["now", "now"]

    assert calls == [[NOTED, {"to": "ann"}]] * 2


async def test_items_that_look_like_notes_are_enqueued_by_name_by_crons_and_under_a_key(forge: Forge) -> None:
    calls: list[list[Any]] = []
    await forge.crons.set("daily", "@daily", "pay", payload=[NOTED], key="a", key_mode="merge")
    for bills in ([NOTED, 1], [NOTED], [2]):
        made = await forge.enqueue("pay", bills, key="a", key_mode="merge")
    assert (await forge.crons.trigger("daily")).id == made.id

    @forge.batch_handler
    async def pay(bills: list[Any]) -> None:
        calls.append(bills)

    async with working(forge):
        await forge.wait(made, timeout=30)

    assert calls == [[NOTED, 1, NOTED, 2, NOTED]]


@pytest.mark.parametrize(
    "payload",
    [{}, {"mails": []}, {"mails": 3}, {"mails": ["x"], "more": 1}, {"mails": [1]}, [], [1]],
    ids=str,
)
async def test_what_is_no_list_of_items_is_refused_when_it_is_enqueued(forge: Forge, payload: Any) -> None:
    @forge.batch_handler
    async def notify(mails: list[str]) -> None: ...

    with pytest.raises(InvalidPayload, match="is refused: "):
        await forge.enqueue("notify", payload)
    assert await forge.jobs.list() == []


async def test_only_lists_may_be_merged(forge: Forge) -> None:
    @forge.handler
    async def welcome(user: int) -> None: ...

    @forge.batch_handler(codec="msgpack")
    async def packed(items: list[int]) -> None: ...

    with pytest.raises(
        InvalidInput, match="'welcome' takes no list, allowed is one declared by batch_handler"
    ):
        await welcome.options(key="x", key_mode="merge").enqueue(user=1)
    with pytest.raises(InvalidInput, match="the payload of 'packed' is msgpack, allowed is json"):
        await packed.options(key="x", key_mode="merge").enqueue(items=[1])
    with pytest.raises(InvalidInput, match="the payload of 'other' is no list, allowed is a list"):
        await forge.enqueue("other", {"a": 1}, key="x", key_mode="merge")
    with pytest.raises(InvalidInput, match="allowed is a mapping of argument names"):
        await forge.enqueue("welcome", [1])
    assert await forge.jobs.list() == []


def test_a_function_that_takes_no_list_is_no_batch_handler(unopened: Forge) -> None:
    async def nothing() -> None: ...
    async def two(one: list[int], other: list[int]) -> None: ...
    async def number(count: int) -> None: ...
    async def unsaid(items) -> None: ...  # type: ignore[no-untyped-def]
    def plain(items) -> None: ...  # type: ignore[no-untyped-def]
    async def default(items: list[int] = []) -> None: ...  # noqa: B006
    async def late(items: list[int], ctx: Context) -> None: ...

    said = {
        nothing: "takes nothing, allowed is one list of items",
        two: "takes one, other, allowed is one list",
        number: "parameter 'count' is int, allowed is a list, such as",
        unsaid: "parameter 'items' has no annotation, allowed is one list",
        plain: "parameter 'items' has no annotation, allowed is one list",
        default: "parameter 'items' has a default, allowed is one list",
        late: "takes items, ctx, allowed is one list of items",
    }
    for function, wrong in said.items():
        with pytest.raises(InvalidInput, match=re.escape(wrong)):
            unopened.batch_handler(function)  # type: ignore[call-overload]
    assert unopened.handlers == {}


def in_a_process(items: list[int]) -> None: ...


def test_a_batch_handler_runs_in_the_loop_or_in_a_thread_and_once_for_a_job(unopened: Forge) -> None:
    async def able(items: list[int]) -> None: ...

    with pytest.raises(
        InvalidInput, match="has executor='process', allowed is an async function, or a plain"
    ):
        unopened.batch_handler(executor="process")(in_a_process)
    with pytest.raises(InvalidInput, match="batch is given to a batch handler, allowed is one of them"):
        unopened.batch_handler(batch=Batch())(able)  # type: ignore[call-overload]


@pytest.fixture
def unopened() -> Forge:
    return Forge("sqlite://:memory:")


def test_an_unfit_list_is_an_unfit_payload() -> None:
    forge = Forge("sqlite://:memory:")

    @forge.batch_handler
    async def notify(mails: list[Mail]) -> None: ...

    with pytest.raises(UnfitPayload, match="Expected `array`, got `object`"):
        notify.arguments.decode(b"{}")
    with pytest.raises(InvalidPayload, match="is refused"):
        notify.arguments.decode(b"[")
