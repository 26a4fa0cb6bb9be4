"""A job of a handler with pin="version" that has begun goes on with workers of the version that began it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace

import pytest

from forge_jobs import Context, Forge, InvalidInput, State, Step, Worker
from forge_jobs.model.job import Claim
from forge_jobs.model.version import Version, VersionState
from forge_jobs.telemetry.events import PinnedElsewhere, PinUnversioned
from tests.storage.databases import Database
from tests.working.events import Events
from tests.working.eventually import eventually
from tests.working.running import working

POOL = "6f0c4e1a-pool"

Program = Callable[..., AbstractAsyncContextManager[Worker]]


@pytest.fixture
def did() -> list[str]:
    """Which version did what of which job."""
    return []


@pytest.fixture
def program(database: Database, forge: Forge, did: list[str]) -> Program:
    """A worker of a version of the program, in a process of its own as far as its database can tell."""

    @asynccontextmanager
    async def begin(
        version: str, *, pin: str | None = "version", pool: str | None = None, **handlers: object
    ) -> AsyncIterator[Worker]:
        settings = replace(
            forge.settings,
            worker_version=version,
            pool=pool,
            version_id=None if pool is None else f"version{version}",
        )
        own = Forge(storage=database.storage(), settings=settings)

        @own.handler(pin=pin, max_attempts=9)
        async def fulfil(ctx: Context) -> str:
            for number in (1, 2):
                await ctx.step(f"part {number}", did.append, f"{version} {number}")
                await ctx.sleep(0.2)
            return version

        @own.handler(pin=pin)
        async def approve(ctx: Context) -> str:
            did.append(f"{version} waits")
            await ctx.wait_for("approved")
            return version

        async with working(own) as worker:
            own.telemetry.subscribe(
                lambda event: did.append("handed back") if isinstance(event, PinnedElsewhere) else None
            )
            yield worker

    return begin


async def test_a_job_that_has_begun_goes_on_with_its_version_and_new_ones_with_any(
    forge: Forge, program: Program, did: list[str]
) -> None:
    async with program("1"):
        job = await forge.enqueue("fulfil")
        await eventually(lambda: did == ["1 1"])
    async with program("2"):
        await eventually(lambda: "handed back" in did)
        new = await forge.enqueue("fulfil")
        assert (await forge.wait(new, timeout=30)) == "2"
        assert (await forge.jobs.get(job)).state is State.PENDING
        async with program("1"):
            assert (await forge.wait(job, timeout=30)) == "1"
    assert [one for one in did if one != "handed back"] == ["1 1", "2 1", "2 2", "1 2"]
    assert did.count("handed back") == 1


async def test_without_the_option_any_version_goes_on(forge: Forge, program: Program, did: list[str]) -> None:
    async with program("1", pin=None):
        job = await forge.enqueue("fulfil")
        await eventually(lambda: did == ["1 1"])
    async with program("2", pin=None):
        assert (await forge.wait(job, timeout=30)) == "2"


async def test_a_job_that_only_waits_for_a_signal_has_begun(
    forge: Forge, program: Program, did: list[str]
) -> None:
    async with program("1"):
        job = await forge.enqueue("approve")
        await eventually(lambda: is_waiting(forge, job.id))
    async with program("2"):
        await forge.signal("approved", job=job)
        await eventually(lambda: "handed back" in did)
        async with program("1"):
            assert (await forge.wait(job, timeout=30)) == "1"


async def is_waiting(forge: Forge, job_id: int) -> bool:
    return (await forge.jobs.get(job_id)).state is State.WAITING


async def test_a_version_that_drains_goes_on_with_what_it_has_begun_and_begins_nothing(
    forge: Forge, program: Program, did: list[str]
) -> None:
    epoch = (await forge.versions.take_over("operator")).number
    for version, state in {"1": VersionState.CURRENT, "2": VersionState.PENDING}.items():
        assert await forge.versions.put(
            Version(POOL, f"version{version}", version, "mail", state), epoch=epoch
        )

    async with program("1", pool=POOL), program("2", pool=POOL):
        first = await forge.enqueue("fulfil")
        await eventually(lambda: did == ["1 1"])
        await forge.versions.promote(POOL, "version2", epoch=epoch)
        second = await forge.enqueue("fulfil")

        assert (await forge.wait(first, timeout=30)) == "1"
        assert (await forge.wait(second, timeout=30)) == "2"


async def test_a_job_that_is_unpinned_goes_on_with_the_version_that_is_there(
    forge: Forge, program: Program, did: list[str]
) -> None:
    async with program("1"):
        job = await forge.enqueue("fulfil")
        await eventually(lambda: did == ["1 1"])
    async with program("2"):
        await eventually(lambda: "handed back" in did)

        assert await forge.jobs.unpin(job)

        assert (await forge.wait(job, timeout=30)) == "2"
    assert not await forge.jobs.unpin(job)


async def test_a_step_in_a_transaction_that_is_rolled_back_pins_nothing(
    forge: Forge, database: Database
) -> None:
    seen: list[object] = []

    @forge.handler(pin="version")
    async def book(ctx: Context) -> None:
        for is_kept in (False, True):
            try:
                async with database.transaction() as connection:
                    await ctx.step(Step("book", connection=connection), lambda: None)
                    assert is_kept
            except AssertionError:
                pass
            seen.append(await forge.storage.pins.of_job(ctx.job_id))

    job = await book.enqueue()
    await Worker(forge, queues=["default"]).run(until_empty=True)

    assert (await forge.jobs.get(job)).state is State.DONE
    assert [pin is None for pin in seen] == [True, False]
    assert await forge.storage.pins.counts() == []


async def test_a_job_that_ends_before_it_hears_that_it_is_pinned_is_pinned_no_more(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = forge.storage.pins.add

    async def never_answered(claim: Claim, *, connection: object = None) -> bool:
        await add(claim, connection=connection)
        return await asyncio.Event().wait()

    monkeypatch.setattr(forge.storage.pins, "add", never_answered)

    @forge.handler(pin="version", max_attempts=1, timeout=0.2)
    async def book(ctx: Context) -> None:
        await ctx.step("book", lambda: None)

    job = await book.enqueue()
    await Worker(forge, queues=["default"]).run(until_empty=True)

    assert (await forge.jobs.get(job)).state is State.DEAD
    assert await forge.storage.pins.of_job(job.id) is None


def test_a_wrong_pin_is_refused() -> None:
    with pytest.raises(InvalidInput) as refused:
        Forge("sqlite://:memory:").handler(pin="1.0")(asyncio.sleep)  # type: ignore[call-overload]

    assert str(refused.value) == "pin of handler 'sleep' is '1.0', allowed is 'version', or None."


async def test_a_worker_without_a_version_warns_when_it_begins_that_it_pins_jobs(
    forge: Forge, events: Events
) -> None:
    @forge.handler(pin="version")
    async def onboard(ctx: Context) -> None: ...

    await Worker(forge, queues=["default"]).run(until_empty=True)
    assert [event.kinds for event in events.of(PinUnversioned)] == [["onboard"]]

    await Worker(forge, queues=["default"], version="2").run(until_empty=True)
    assert len(events.of(PinUnversioned)) == 1


async def test_another_version_goes_on_with_all_jobs_that_were_pinned_to_one(
    forge: Forge, database: Database
) -> None:
    did: list[str] = []

    def handler(version: str) -> Callable[..., object]:
        async def onboard(ctx: Context) -> None:
            await ctx.step("begin", step)
            did.append(version)
            if version == "1":
                raise RuntimeError("not here")

        return onboard

    async def step() -> None: ...

    async with Forge(storage=database.storage()) as old:
        job = await old.handler(pin="version")(handler("1")).enqueue()
        await Worker(old, queues=["default"], version="1").run(until_empty=True)
    forge.handler(pin="version")(handler("2"))
    assert await forge.jobs.repin_all("1", "2", kind="another") == 0
    assert await forge.jobs.repin_all("1", "2") == 1
    await forge.jobs.run_now(job)
    await Worker(forge, queues=["default"], version="3").run(until_empty=True)
    assert did == ["1"]
    await Worker(forge, queues=["default"], version="2").run(until_empty=True)
    assert did == ["1", "2"]
    assert await forge.jobs.repin_all("1") == 0
