"""Sealed values are what they were sealed as: who may write to the database cannot give a job those of another one."""

import os

import pytest

from forge_jobs import Context, Flow, Forge, InvalidPayload, State, Worker
from forge_jobs.codecs import bound, register, sealed
from forge_jobs.codecs.sealing import Sealed
from tests.storage.databases import Database

KEY = os.urandom(32)


@pytest.fixture(autouse=True)
def registered(own_codecs: None) -> None:
    register("sealed", sealed(keys={"new": KEY}))


async def run(forge: Forge) -> None:
    await Worker(forge, queues=["default"], concurrency=4).run(until_empty=True)


async def test_the_result_of_another_job_is_no_result_of_this_one(forge: Forge, database: Database) -> None:
    @forge.handler(codec="sealed")
    async def vote(yes: bool) -> str:
        return "yes" if yes else "no"

    yes, no = await vote.enqueue(yes=True), await vote.enqueue(yes=False)
    await run(forge)
    await database.run(
        "UPDATE finished SET result = "
        f"(SELECT result FROM finished WHERE job_id = {yes.id}) WHERE job_id = {no.id}"
    )

    assert await forge.wait(yes, timeout=30) == "yes"
    with pytest.raises(
        InvalidPayload, match="it is damaged, or was sealed for another job or place, or with another key"
    ):
        await forge.wait(no, timeout=30)


async def test_a_step_of_another_job_or_of_another_name_is_no_step_of_this_one(
    forge: Forge, database: Database
) -> None:
    fail = True

    @forge.handler(codec="sealed")
    async def check(ctx: Context, user: int) -> str:
        first = await ctx.step("is admin", answer, user == 1)
        second = await ctx.step("may pay", answer, True)
        if fail:
            raise RuntimeError("not yet")
        return f"{first} {second}"

    async def answer(what: bool) -> bool:
        return what

    admin, guest, swapped = [await check.enqueue(user=user) for user in (1, 2, 3)]
    await run(forge)
    await database.run(
        "UPDATE step SET result = (SELECT result FROM step AS other "
        f"WHERE other.job_id = {admin.id} AND other.name = step.name) WHERE job_id = {guest.id}"
    )
    await database.run(
        "UPDATE step SET result = (SELECT result FROM step AS other "
        f"WHERE other.job_id = {swapped.id} AND other.name = 'may pay') WHERE job_id = {swapped.id}"
    )
    fail = False
    for job in (admin, guest, swapped):
        await forge.jobs.run_now(job.id)
    await run(forge)

    assert await forge.wait(admin, timeout=30) == "True True"
    for job in (guest, swapped):
        there = await forge.jobs.get(job.id)
        assert there.state is State.RETRYING
        assert "The result of step 'is admin' cannot be read as sealed" in (there.error or "")


async def test_what_is_rightly_read_elsewhere_is_read(forge: Forge) -> None:
    @forge.handler(codec="sealed")
    async def double(number: int) -> int:
        return 2 * number

    @forge.handler(codec="sealed")
    async def total(left: int, right: int) -> int:
        return left + right

    @forge.handler(codec="sealed")
    async def waits(ctx: Context, job: int) -> str:
        await ctx.save({"job": job})
        doubled = await ctx.wait_for_job(job)
        said = await ctx.wait_for("said")
        await ctx.save_for_key([doubled])
        return f"{doubled} {said} {ctx.state} {await ctx.state_of_key()}"

    flow = Flow("sums")
    one, two = [flow.node(double, name=f"n{number}", number=number) for number in (1, 2)]
    flow.node(total).depends_on(one, two)
    started = await flow.start()
    job = await double.enqueue(number=21)
    waiting = await waits.options(key="k").enqueue(job=job.id)
    await forge.signal("said", "hello", job=waiting)
    await run(forge)
    await run(forge)

    assert await forge.flows.wait(started, timeout=30) == {"total": 6}
    assert await forge.wait(waiting, timeout=30) == f"42 hello {{'job': {job.id}}} [42]"


async def test_a_rerun_of_a_rerun_reads_the_steps_that_the_first_one_did_though_the_second_one_is_gone(
    forge: Forge,
) -> None:
    done: list[str] = []

    @forge.handler(codec="sealed")
    async def pay(ctx: Context, card: str) -> str:
        charged = await ctx.step("charge", charge, card)
        return f"{charged} {await ctx.step('mail', mail)}"

    async def charge(card: str) -> str:
        done.append("charge")
        return f"paid with {card}"

    async def mail() -> str:
        done.append("mail")
        return "mailed"

    first = await pay.enqueue(card="4111")
    await run(forge)
    second = await forge.jobs.rerun(first, from_step="mail")
    await run(forge)
    third = await forge.jobs.rerun(second, from_step="mail")
    await forge.jobs.delete(second)
    await run(forge)

    assert await forge.wait(third, timeout=30) == "paid with 4111 mailed"
    assert done == ["charge", "mail", "mail", "mail"]
    assert [step.done_by for step in (await forge.jobs.get(third)).steps] == [first.id, None]


async def test_what_an_earlier_release_sealed_for_whatever_it_is_is_still_read(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_it_is = Sealed.wrap_for

    def unbound(self: Sealed, payload: bytes, of: str) -> bytes:
        return as_it_is(self, payload, "" if " " in of else of)

    @forge.handler(codec="sealed")
    async def double(number: int) -> int:
        return 2 * number

    monkeypatch.setattr(Sealed, "wrap_for", unbound)
    job = await double.enqueue(number=21)
    await run(forge)
    monkeypatch.undo()
    register("sealed", sealed(keys={"new": KEY}))

    assert await forge.wait(job, timeout=30) == 42


def test_a_payload_is_never_read_as_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = sealed(keys={"new": KEY})
    result = codec.wrap_for(b"1", "result of job 1")
    for of in ("pay", "", "result of job 2"):
        with pytest.raises(ValueError, match="damaged"):
            codec.unwrap_for(result, of)
    with pytest.raises(ValueError, match="damaged"):
        codec.unwrap_for(codec.wrap_for(b"1", "pay"), "result of job 1")
    with pytest.raises(ValueError, match="for another kind of job"):
        codec.unwrap_for(codec.wrap_for(b"1", ""), "pay")


async def test_an_open_mapping_is_no_result_of_a_sealed_job(forge: Forge, database: Database) -> None:
    @forge.handler(codec="sealed")
    async def rights(user: int) -> dict[str, bool]:
        return {"is_blocked": True}

    job = await rights.enqueue(user=1)
    await run(forge)
    empty = "'{}'::bytea" if database.kind == "postgres" else "CAST('{}' AS BLOB)"
    await database.run(f"UPDATE finished SET result = {empty} WHERE job_id = {job.id}")

    with pytest.raises(InvalidPayload, match="cannot be read as sealed: it is not sealed, or damaged"):
        await forge.wait(job, timeout=30)


def test_the_state_of_a_job_is_not_bound_as_that_of_a_key() -> None:
    assert bound.state_of(7) != bound.kept_for_key("job", "7")
