"""Jobs with keys as programs enqueue them, and as their handlers see them."""

import asyncio

import pytest

from forge_jobs import Context, Forge, InvalidInput, KeyMode, Removed, State, Worker
from forge_jobs.model.job import SUPERSEDED
from forge_jobs.model.run import Outcome, Run
from forge_jobs.telemetry.counters import Counters
from forge_jobs.telemetry.events import JobsEnded


async def run(forge: Forge) -> None:
    async with asyncio.timeout(30):
        await Worker(forge, queues=["default"]).run(until_empty=True)


@pytest.mark.parametrize("mode", ["replace", KeyMode.REPLACE])
async def test_the_newest_payload_is_what_runs(forge: Forge, mode: KeyMode | str) -> None:
    ran = []

    @forge.handler
    async def total(cart: int, items: int) -> None:
        ran.append((cart, items))

    async with forge:
        answers = [
            await total.options(key="cart:1", key_mode=mode).enqueue(cart=1, items=items)
            for items in (1, 2, 3)
        ]
        await run(forge)

    assert [answer.is_new for answer in answers] == [True, False, False]
    assert ran == [(1, 3)]


async def test_a_handler_that_is_superseded_ends_once_and_no_alert_is_raised(forge: Forge) -> None:
    ran: list[str] = []
    ended: list[Run] = []
    counters = Counters()
    forge.telemetry.subscribe(counters)
    forge.telemetry.subscribe(
        lambda event: ended.extend(event.runs) if isinstance(event, JobsEnded) else None
    )

    @forge.handler
    async def sync(ctx: Context, version: str) -> None:
        ran.append(version)
        if version == "old":
            await ctx.enqueue("sync", {"version": "new"}, key=ctx.key, key_mode="replace")
            raise ValueError("the other side has gone")

    async with forge:
        old = await sync.options(key="shop").enqueue(version="old")
        await run(forge)
        found = await forge.jobs.get(old)

    assert ran == ["old", "new"]
    assert (found.state, found.error) == (State.DEAD, SUPERSEDED)
    assert [run.outcome for run in ended] == [Outcome.SUPERSEDED, Outcome.DONE]
    [family] = [family for family in counters.collect() if family.name == "forge_jobs_ended"]
    counted = {sample.labels["outcome"]: sample.value for sample in family.samples}
    assert (counted["superseded"], counted["dead"], counted["failed"]) == (1, 0, 0)


async def test_a_plain_handler_replaces_too(forge: Forge) -> None:
    @forge.handler
    def plan() -> None:
        _ = forge.enqueue("later", {"n": 1}, key="k", delay=3600)
        _ = forge.enqueue("later", {"n": 2}, key="k", key_mode="preserve_run_at")

    async with forge:
        await plan.enqueue()
        await run(forge)
        [job] = await forge.jobs.list(kind="later")

    assert (job.state, job.payload) == (State.SCHEDULED, b'{"n":2}')


async def test_many_replace_and_one_is_removed(forge: Forge) -> None:
    async with forge:
        options = {"key": "k", "key_mode": "replace"}
        answers = await forge.enqueue_many("work", [{"n": 1}, {"n": 2}], **options)  # type: ignore[arg-type]
        assert [(answer.is_new, answer.replaced) for answer in answers] == [(True, False), (False, True)]

        assert await forge.jobs.remove("work", "k") is Removed.DELETED
        assert await forge.jobs.remove("work", "k") is Removed.NOT_FOUND


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"key": "k", "key_mode": "replac"},
            "key_mode is 'replac', allowed is one of dedupe, replace, preserve_run_at, merge.",
        ),
        (
            {"key": "k", "key_mode": None},
            "key_mode is None, allowed is one of dedupe, replace, preserve_run_at, merge.",
        ),
        ({"key_mode": "replace"}, "key_mode is given and key is not, allowed is both."),
    ],
)
async def test_a_wrong_mode_is_refused_and_nothing_is_written(
    forge: Forge, options: dict[str, str], sentence: str
) -> None:
    async with forge:
        for enqueue in (
            lambda: forge.enqueue("work", **options),  # type: ignore[arg-type]
            lambda: forge.enqueue_many("work", [{}], **options),  # type: ignore[arg-type]
        ):
            with pytest.raises(InvalidInput) as refused:
                await enqueue()
            assert str(refused.value) == sentence
        assert await forge.jobs.list() == []


async def test_a_key_to_remove_has_to_be_one(forge: Forge) -> None:
    async with forge:
        with pytest.raises(InvalidInput, match="The key is ''"):
            await forge.jobs.remove("work", "")
        with pytest.raises(InvalidInput, match="The kind is"):
            await forge.jobs.remove("two words", "k")
