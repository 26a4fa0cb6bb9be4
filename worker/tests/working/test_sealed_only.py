"""Jobs that everybody could have written: kinds that take sealed ones only refuse them, and reruns seal what was open."""

import os
from typing import Any

import pytest

from forge_jobs import Context, Encoded, Flow, FlowState, Forge, InvalidInput, InvalidPayload, State, Worker
from forge_jobs.codecs import compressed, plain, register, sealed
from forge_jobs.codecs.seal import key_id_of
from tests.storage.databases import Database

KEY = os.urandom(32)


@pytest.fixture(autouse=True)
def registered(own_codecs: None) -> None:
    register("sealed", sealed(keys={"new": KEY}))
    register("packed", compressed())


async def run(forge: Forge) -> None:
    await Worker(forge, queues=["default"], concurrency=4).run(until_empty=True)


async def test_a_kind_that_takes_sealed_jobs_only_refuses_an_open_one_that_somebody_wrote(
    forge: Forge, database: Database
) -> None:
    paid: list[str] = []

    @forge.handler(codec="sealed", sealed_only=True)
    async def pay(card: str) -> None:
        paid.append(card)

    @forge.batch_handler(codec="sealed", sealed_only=True)
    async def notify(items: list[str]) -> None:
        paid.extend(items)

    async with Forge(storage=database.storage()) as stranger:
        forged = await stranger.enqueue("pay", {"card": "4111"})
        packed = await stranger.enqueue("pay", Encoded(plain.encode({"card": "4111"}, "packed"), "packed"))
        listed = await stranger.enqueue("notify", ["ada"])
    proper = await pay.enqueue(card="mine")
    await run(forge)

    assert paid == ["mine"]
    assert (await forge.jobs.get(proper)).state is State.DONE
    there = [await forge.jobs.get(job) for job in (forged, packed, listed)]
    assert [job.state for job in there] == [State.DEAD] * 3
    assert there[0].error is not None and there[0].error.endswith(
        "pay is json, which everybody can write, allowed are sealed ones only."
    )


async def test_its_own_program_does_not_enqueue_an_open_one_either(forge: Forge) -> None:
    @forge.handler(codec="sealed", sealed_only=True)
    async def pay(card: str = "") -> None: ...

    with pytest.raises(InvalidPayload, match=r"pay is json, which everybody can write, allowed are sealed"):
        await forge.enqueue("pay", Encoded(b'{"card":"4111"}'))
    await pay.enqueue()
    await run(forge)


async def test_a_node_that_takes_sealed_jobs_only_makes_no_sealed_items_of_an_open_list(
    forge: Forge, database: Database
) -> None:
    paid: list[str] = []

    async def pay(card: str) -> None:
        paid.append(card)

    async with Forge(storage=database.storage()) as stranger:
        started = await Flow("pays").map(stranger.handler(pay)).start(["forged"])
    forge.handler(codec="sealed", sealed_only=True)(pay)
    await run(forge)

    assert (await forge.flows.get(started.id)).state is FlowState.DEAD
    assert paid == []


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_sealed_only_is_true_or_false(value: Any) -> None:
    async def pay() -> None: ...

    with pytest.raises(InvalidInput, match=r"sealed_only is .*, allowed are True and False"):
        Forge("sqlite://:memory:").handler(codec="sealed", sealed_only=value)(pay)


async def test_a_handler_whose_codec_does_not_seal_cannot_take_sealed_jobs_only() -> None:
    forge = Forge("sqlite://:memory:")

    @forge.handler(codec="packed", sealed_only=True)
    async def pay(card: str) -> None: ...

    with pytest.raises(
        InvalidInput,
        match="sealed_only of handler 'pay' is given and its codec is 'packed', allowed is a codec that seals",
    ):
        async with forge:
            await forge.publish()


@pytest.mark.parametrize("was", ["json", "msgpack", "packed"])
async def test_a_rerun_of_a_job_that_was_open_is_sealed_when_its_kind_is_by_now(
    forge: Forge, database: Database, was: str
) -> None:
    seen: list[str] = []

    async def pay(ctx: Context, card: str) -> str:
        seen.append(await ctx.step("check", check, card))
        seen.append(card)
        return await ctx.step("charge", check, card)

    async def check(card: str) -> str:
        return f"paid with {card}"

    async with Forge(storage=database.storage()) as before:
        first = await before.handler(codec=was)(pay).enqueue(card="4111")
        await run(before)
    forge.handler(codec="sealed", sealed_only=True)(pay)
    await forge.publish()

    second = await forge.jobs.rerun(first)
    with_steps = await forge.jobs.rerun(first, from_step="charge")
    other = await forge.jobs.rerun(first, {"card": "4222"})
    for job in (second, with_steps, other):
        there = await forge.jobs.get(job)
        assert (there.codec, key_id_of(there.payload)) == ("sealed", "new")
    await run(forge)
    assert [await forge.wait(job, timeout=30) for job in (second, with_steps, other)] == [
        "paid with 4111",
        "paid with 4111",
        "paid with 4222",
    ]
    with pytest.raises(
        InvalidInput, match="pay is json, which everybody can write, allowed are sealed ones only"
    ):
        await forge.jobs.rerun(first, Encoded(b'{"card":"4222"}', "json"))


async def test_a_program_without_the_codec_runs_no_open_job_again_whose_kind_is_sealed_by_now(
    forge: Forge, database: Database
) -> None:
    async def pay(card: str = "") -> None: ...

    async with Forge(storage=database.storage()) as before:
        first = await before.handler(pay).enqueue(card="4111")
        empty = await before.enqueue("pay")
        await run(before)
    forge.handler(codec="sealed")(pay)
    await forge.publish()
    del plain._codecs["sealed"]

    with pytest.raises(
        InvalidInput,
        match=rf"Job {first.id} is json, and jobs of kind 'pay' are sealed by now; allowed is to run it again in a "
        "program that has the codec 'sealed'",
    ):
        await forge.jobs.rerun(first)
    assert (await forge.jobs.get(await forge.jobs.rerun(empty))).codec == "sealed"
