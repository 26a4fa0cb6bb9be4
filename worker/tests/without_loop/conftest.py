"""What a program without an event loop does, on both databases: its tests are plain functions."""

from collections.abc import Callable, Iterator

import pytest

from forge_jobs import Forge
from tests.storage.conftest import *  # noqa: F403  the databases
from tests.storage.databases import Database


@pytest.fixture
def new_forge(database: Database) -> Iterator[Callable[[], Forge]]:
    """Return a Forge on the test's own database whenever it is called, as another program would have it."""
    made: list[Forge] = []

    def new() -> Forge:
        made.append(Forge(database.url))
        return made[-1]

    yield new
    for forge in made:
        forge.sync.close()


@pytest.fixture
def forge(new_forge: Callable[[], Forge]) -> Forge:
    """A Forge on the test's own database, which nobody has opened."""
    return new_forge()
