"""Crons that handlers declare: what people change stays until the code changes, and releases side by side do not fight."""

import contextlib
import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from forge_jobs import Cron, Forge, Managed
from forge_jobs.maintenance import declared_crons, leader
from forge_jobs.telemetry.events import CronDeclared, CronKept, CronUndeclarable, CronUndeclared
from forge_jobs.testing import run_due_jobs, use_test_database
from tests.storage.databases import Database
from tests.storage.factories import cron
from tests.working.events import Events
from tests.working.eventually import eventually
from tests.working.running import working

markers = itertools.count(1)


@pytest.fixture(autouse=True)
def looks_come_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leader, "DECLARE_EVERY", 0.05)
    monkeypatch.setattr(leader, "RENEW_EVERY", 0.1)
    monkeypatch.setattr(declared_crons, "LOOKS", 3)


class Release:
    """A release of a program that cleans up by the clock; None: it does not any more."""

    def __init__(self, database: Database, *crons: Any) -> None:
        self.forge = Forge(storage=database.storage())
        self.events = Events()
        self.forge.telemetry.subscribe(self.events.append)
        self.forge.handler(cron=list(crons))(self.clean_up)

    async def clean_up(self) -> None: ...

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with working(self.forge):
            yield


async def expression(forge: Forge) -> str:
    return (await forge.crons.get("clean_up")).expression


async def becomes(forge: Forge, wanted: str) -> None:
    async def is_so() -> bool:
        return await expression(forge) == wanted

    await eventually(is_so)


async def looked(leading: Release) -> None:
    """The leader has looked at what is declared a few times more: often enough to miss a cron."""
    name = f"marker-{next(markers)}"
    await leading.forge.storage.crons.declare(cron(name, declared="x"), last_declared=None)
    await eventually(lambda: name in {event.name for event in leading.events.of(CronUndeclared)})
    await leading.forge.crons.delete(name)


async def test_a_cron_is_there_when_a_worker_has_begun(forge: Forge, database: Database) -> None:
    release = Release(database, "0 3 * * *", Cron("@hourly", name="often", queue="slow", tags=["x"]))
    async with release.running():
        daily, hourly = await forge.crons.list()

    assert (daily.name, daily.expression, daily.kind, daily.queue) == (
        "clean_up",
        "0 3 * * *",
        "clean_up",
        "default",
    )
    assert (hourly.name, hourly.queue, hourly.tags) == ("often", "slow", ("x",))
    assert daily.next_fire_at is not None
    assert {event.name for event in release.events.of(CronDeclared)} == {"clean_up", "often"}


async def test_a_program_that_only_enqueues_declares_no_cron(forge: Forge, database: Database) -> None:
    async with Release(database, "0 3 * * *").forge:
        assert await forge.crons.list() == []


async def test_what_people_change_stays_until_the_code_changes(forge: Forge, database: Database) -> None:
    async with Release(database, "0 3 * * *").running():
        await forge.crons.set("clean_up", "0 12 * * *", "clean_up")
    same = Release(database, "0 3 * * *")
    async with same.running():
        await looked(same)
        assert await expression(forge) == "0 12 * * *"
        assert await forge.crons.origins() == {"clean_up": "code, changed since"}
    async with Release(database, "0 4 * * *").running():
        assert await expression(forge) == "0 4 * * *"
        assert await forge.crons.origins() == {"clean_up": "code"}
    assert await forge.crons.origins() == {"clean_up": "code of no live worker"}


async def test_a_cron_that_was_disabled_stays_so_when_the_code_changes(
    forge: Forge, database: Database
) -> None:
    async with Release(database, "0 3 * * *").running():
        await forge.crons.disable("clean_up")
    async with Release(database, "0 4 * * *").running():
        found = await forge.crons.get("clean_up")

    assert (found.expression, found.enabled, found.next_fire_at) == ("0 4 * * *", False, None)


async def test_an_older_release_that_begins_anew_beside_a_newer_one_changes_nothing(
    forge: Forge, database: Database
) -> None:
    older = Release(database, "0 3 * * *")
    async with older.running():
        assert await expression(forge) == "0 3 * * *"
        newer = Release(database, "0 4 * * *")
        async with newer.running():
            assert await expression(forge) == "0 4 * * *"
            again = Release(database, "0 3 * * *")
            async with again.running():
                await looked(older)
                assert await expression(forge) == "0 4 * * *"
                written = [
                    event.expression for event in older.events.of(CronDeclared)
                ]  # the leader writes, too
                assert written.count("0 3 * * *") == 1
                assert again.events.of(CronDeclared) == []


async def test_what_an_older_release_says_holds_again_when_the_newer_one_was_taken_back(
    forge: Forge, database: Database
) -> None:
    async with Release(database, "0 3 * * *").running():
        async with Release(database, "0 4 * * *").running():
            assert await expression(forge) == "0 4 * * *"
        await becomes(forge, "0 3 * * *")


async def test_a_cron_that_has_gone_from_the_code_is_said_once_and_goes_on(
    forge: Forge, database: Database
) -> None:
    async with Release(database, "0 3 * * *").running():
        pass
    without = Release(database)
    async with without.running():
        await eventually(lambda: without.events.of(CronUndeclared))
        await looked(without)
        assert [event.name for event in without.events.of(CronUndeclared)].count("clean_up") == 1
        assert (await forge.crons.get("clean_up")).enabled
        await forge.crons.delete("clean_up")


async def test_a_cron_of_a_live_worker_is_not_deleted(forge: Forge, database: Database) -> None:
    async with Release(database, "0 3 * * *").running():
        with pytest.raises(Managed):
            await forge.crons.delete("clean_up")


async def test_a_cron_that_a_file_has_taken_over_is_given_back_when_it_leaves_the_file(
    forge: Forge, database: Database
) -> None:
    release = Release(database, "0 3 * * *")
    async with release.running():
        await forge.crons.load("0 12 * * * clean_up\n0 1 * * * other\n", owner="shop")
        await looked(release)
        assert await forge.crons.origins() == {"clean_up": "shop", "other": "shop"}

        for dry_run in (True, False):
            pruned = await forge.crons.load("", owner="shop", prune=True, dry_run=dry_run)
            assert {what.name: what.change for what in pruned} == {
                "clean_up": "given back",
                "other": "deleted",
            }
        await becomes(forge, "0 3 * * *")
        assert await forge.crons.origins() == {"clean_up": "code"}


async def test_an_owner_says_what_holds_and_the_log_says_that(forge: Forge, database: Database) -> None:
    await forge.crons.set("clean_up", "0 12 * * *", "clean_up", managed_by="shop")
    release = Release(database, "0 3 * * *")
    async with release.running():
        await looked(release)
        assert await expression(forge) == "0 12 * * *"

    assert release.events.of(CronKept) == [CronKept("clean_up", "shop")]
    assert release.events.of(CronDeclared) == []


async def test_a_cron_that_cannot_be_written_keeps_no_worker_from_its_work(
    forge: Forge, database: Database
) -> None:
    await database.refuse("cron", "new.name = 'clean_up'")
    release = Release(database, "0 3 * * *")
    job = await forge.enqueue("clean_up")
    async with release.running():
        await forge.wait(job)
        await eventually(lambda: release.events.of(CronUndeclarable))
        await database.accept()
        await eventually(lambda: release.events.of(CronDeclared))


async def test_users_tests_have_the_crons_of_their_handlers() -> None:
    forge = Forge("sqlite://:memory:")

    @forge.handler(cron="0 3 * * *")
    async def clean_up() -> None: ...

    async with use_test_database(forge, now=datetime(2030, 1, 1, 12, tzinfo=UTC)) as clock:
        assert await run_due_jobs(forge) == []
        clock.advance(timedelta(days=1))
        assert [job.kind for job in await run_due_jobs(forge)] == ["clean_up"]
