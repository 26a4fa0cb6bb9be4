"""Work that is committed with the completion of its job is done once, however often workers are killed."""

from forge_jobs import Forge
from tests.storage.databases import Database
from tests.working.bookkeeping import MAKE_BOOK
from tests.working.effectively_once import kept
from tests.working.processes import Fleet


async def test_work_committed_with_its_completion_is_done_once_though_workers_are_killed(
    forge: Forge, database: Database, workers: Fleet
) -> None:
    await database.run(MAKE_BOOK)

    report = await kept(forge, workers, database.rows, jobs=200, every=40, pause=0.4)

    assert (report.done, report.once, report.booked) == (200, 200, 200), report
    assert report.killed >= 4 and report.again >= 4
