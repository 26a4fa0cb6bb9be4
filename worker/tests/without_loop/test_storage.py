"""What the suite of both databases promises of enqueueing holds without an event loop, too: the same tests, on storages that never suspend."""

from typing import Any

import pytest

from forge_jobs.storage.interface.storage import Storage
from tests.storage.databases import Database
from tests.storage.test_enqueue import *  # noqa: F403
from tests.storage.test_keys import *  # noqa: F403
from tests.storage.test_limits import *  # noqa: F403
from tests.storage.test_tags import *  # noqa: F403

# It asks which class the database is of.
del test_in_a_callers_transaction_their_own_patience_holds_and_the_key_is_named  # noqa: F821


class WithoutLoop:
    """A test's own database, whose storages never suspend."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    def storage(self, **options: Any) -> Storage:
        return self._database.storage(is_sync=True, **options)  # type: ignore[call-arg]

    async def left_open(self, storage: Any) -> list[Any]:
        pool = getattr(storage._database, "_connections", None)
        return [] if pool is None else list(pool._lent)


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> Any:
    return WithoutLoop(request.getfixturevalue(request.param))
