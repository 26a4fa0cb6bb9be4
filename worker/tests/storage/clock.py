"""The database's time, moved by the tests from outside; production code has no hook for it."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

# Postgres finds these before its own, because the tests put their schema first on the search path.
TEST_CLOCK = """
CREATE SCHEMA test_clock;
CREATE TABLE test_clock.hand (frozen timestamptz, ahead interval NOT NULL DEFAULT '0');
INSERT INTO test_clock.hand DEFAULT VALUES;
CREATE FUNCTION test_clock.now() RETURNS timestamptz STABLE LANGUAGE sql AS
    'SELECT coalesce(frozen, pg_catalog.now() + ahead) FROM test_clock.hand';
CREATE FUNCTION test_clock.statement_timestamp() RETURNS timestamptz STABLE LANGUAGE sql AS
    'SELECT coalesce(frozen, pg_catalog.statement_timestamp() + ahead) FROM test_clock.hand';
"""


class Clock:
    """It runs with the real time until it is set, and stands still from then on; both can be moved."""

    def __init__(self) -> None:
        self.frozen: datetime | None = None
        self.ahead = timedelta(0)
        self.moved: Callable[[Clock], Awaitable[None]] | None = None

    async def reset(self) -> None:
        """It is the real time again."""
        self.frozen, self.ahead = None, timedelta(0)
        await self._tell()

    def now(self) -> datetime:
        return self.frozen or datetime.now(UTC) + self.ahead

    async def set(self, moment: datetime) -> None:
        """It is `moment`, and stays so."""
        self.frozen = moment
        await self._tell()

    async def freeze(self) -> datetime:
        """It stays what it is now; return that."""
        moment = self.now()
        await self.set(moment)
        return moment

    async def advance(self, **duration: float) -> None:
        """It is later by a timedelta(**duration); earlier, when that is negative."""
        if self.frozen is None:
            self.ahead += timedelta(**duration)
        else:
            self.frozen += timedelta(**duration)
        await self._tell()

    async def _tell(self) -> None:
        if self.moved is not None:
            await self.moved(self)
