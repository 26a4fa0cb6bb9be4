"""A worker's tests run on both databases; those with real processes say which."""

from collections.abc import AsyncIterator, Generator
from pathlib import Path

import pytest

from forge_jobs import Forge
from tests.storage.conftest import *  # noqa: F403  the databases, and the clock
from tests.storage.databases import Database
from tests.working.events import Events
from tests.working.ledger import Ledger
from tests.working.processes import Fleet, fleet, fleets


@pytest.fixture
async def forge(database: Database) -> AsyncIterator[Forge]:
    """An open Forge on the test's own database."""
    forge = Forge(storage=database.storage())
    async with forge:
        yield forge


@pytest.fixture
def events(forge: Forge) -> Events:
    """What the forge tells from now on."""
    events = Events()
    forge.telemetry.subscribe(events.append)
    return events


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """What handlers in other processes write down."""
    return Ledger(tmp_path / "ledger")


@pytest.fixture
async def workers(database: Database, ledger: Ledger, tmp_path: Path) -> AsyncIterator[Fleet]:
    """Starts real worker processes on the test's own database."""
    async with fleet(database.url, ledger, tmp_path) as workers:
        yield workers


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails says what its worker processes said, and its handlers wrote down."""
    report = yield
    if report.failed:
        for each in fleets:
            report.sections.extend(each.reports())
    if report.when == "teardown":
        fleets.clear()
    return report
