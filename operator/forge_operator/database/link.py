"""The operator's way to the database: opened when first needed, and again until it answers."""

import asyncio
import logging
import math
import ssl
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from forge_jobs import Forge, ForgeError, SchemaOutdated, SchemaTooNew, Settings
from forge_jobs.model import OperatorEpoch
from forge_jobs.telemetry import Event, events
from forge_operator.cluster.lease import NotLeading
from forge_operator.state.observed import Unknown

logger = logging.getLogger("forge_operator")

CONNECTIONS = 4
STATEMENT_TIMEOUT = timedelta(seconds=10)
PATIENCE = 2.0
"""Seconds for which other callers do not try again to open a database that could not be opened."""


class DatabaseLink:
    """A Forge that does not migrate, and the epoch under which this operator writes.

    `leads_since` is asked before the database is taken over: whether the Lease has been ours
    at a time after that moment (monotonic).
    """

    def __init__(
        self,
        url: str,
        schema: str,
        holder: str,
        *,
        url_file: Path | None = None,
        leads_since: Callable[[float], bool] = lambda moment: True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url, self._schema, self._holder, self._clock = url, schema, holder, clock
        self._url_file = url_file
        self._leads_since = leads_since
        self._lock = asyncio.Lock()
        self._forge: Forge | None = None
        self._epoch: OperatorEpoch | None = None
        self._past_at = -math.inf  # when the last epoch was found to be past
        self._error: ForgeError | None = None
        self._failed_at = 0.0
        self.is_up = False

    async def forge(self) -> Forge:
        """Return the open Forge. Raises ForgeError: StorageUnavailable, SchemaOutdated, SchemaTooNew."""
        if self._forge is not None:
            return self._forge
        async with self._lock:
            if self._forge is None:
                if self._error is not None and self._clock() - self._failed_at < PATIENCE:
                    raise self._error
                self._forge = await self._opened()
            return self._forge

    async def epoch(self) -> OperatorEpoch:
        """Return the epoch that all writes of this operator carry; earlier operators can write no more.

        Raises ForgeError, NotLeading.
        """
        forge = await self.forge()
        async with self._lock:
            if self._epoch is None:
                if not self._leads_since(self._past_at):
                    raise NotLeading(
                        "Another operator has taken over the database, and this one no longer holds the Lease."
                    )
                self._epoch = (await forge.versions.take_over(self._holder)).number
            return self._epoch

    def is_past(self, epoch: OperatorEpoch) -> None:
        """Another operator has taken over. If we lead all the same, it did so too late: the database is ours again."""
        if self._epoch == epoch:
            self._epoch, self._past_at = None, self._clock()

    async def close(self) -> None:
        """No connection is open any more."""
        forge, self._forge = self._forge, None
        if forge is not None:
            await forge.close()

    async def _opened(self) -> Forge:
        forge = Forge(settings=self._settings())
        forge.telemetry.subscribe(_on_event)
        try:
            await forge.open(migrate=False)
        except ForgeError as error:
            self._error, self._failed_at = error, self._clock()
            raise
        self._error = None
        return forge

    def _settings(self) -> Settings:
        return Settings(
            database_url=self._url,
            database="the operator's database",
            storage_options={
                "pool_size": CONNECTIONS,
                "command_timeout": STATEMENT_TIMEOUT,
                "url_file": self._url_file,
            },
            schema=self._schema,
            auto_migrate=False,
        )


def _on_event(event: Event) -> None:
    if isinstance(event, events.DatabaseMoved):
        logger.warning(
            "The database refused a connection, and accepts one with the URL that its file holds now: %s",
            event.url,
        )


def unknown(error: ForgeError) -> Unknown:
    """Return that nothing is known of the database, with the error as the reason."""
    return Unknown(_reason(error), str(error))


def _reason(error: ForgeError) -> str:
    if isinstance(error, SchemaOutdated):
        return "SchemaTooOld"
    if isinstance(error, SchemaTooNew):
        return "SchemaTooNew"
    cause = error.__cause__
    state = str(getattr(cause, "sqlstate", None) or "")
    if state.startswith("28"):
        return "AuthFailed"
    if state == "25006":
        return "ReadOnly"
    return "TLSFailed" if isinstance(cause, ssl.SSLError) else "ConnectionFailed"
