"""The ways of a forge to its database: that of its event loop, and that of threads without one."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, cast

from forge_jobs.client.enqueue import Producer
from forge_jobs.errors import InvalidInput
from forge_jobs.telemetry import events
from forge_jobs.telemetry.telemetry import Telemetry

if TYPE_CHECKING:
    from forge_jobs.forge import Forge
    from forge_jobs.settings.environment import Settings
    from forge_jobs.storage.interface.storage import Storage
    from forge_jobs.sync.sync_forge import SyncForge


class ForgeDatabases:
    """What a Forge knows of its database."""

    telemetry: Telemetry

    def __init__(
        self,
        url: str | None,
        schema: str | None,
        settings: "Settings | None",
        storage: "Storage | None",
    ) -> None:
        self._url, self._schema = url, schema
        self._settings = settings
        self._storage = storage
        self._storage_given = storage is not None
        self._make_sync: Callable[[], Storage] | None = None  # of one that was given
        self._sync: dict[str, SyncForge] = {}  # none before it is asked for

    @property
    def settings(self) -> "Settings":
        """The settings, read when first asked for. Raises InvalidSetting."""
        if self._settings is None:
            from forge_jobs.settings.environment import Settings

            self._settings = Settings.load()
        return self._settings

    @property
    def storage(self) -> "Storage":
        """The database. Raises InvalidSetting when the settings do not say which."""
        if self._storage is None:
            self._storage = self._made_storage()
        return self._storage

    def _made_storage(self, *, is_sync: bool = False) -> "Storage":
        from forge_jobs.settings.environment import pool_options
        from forge_jobs.storage import open_storage

        return open_storage(
            self._url if self._url is not None else self.settings.database_url,
            schema=self.settings.schema if self._schema is None else self._schema,
            url_changed=lambda url: self.telemetry.emit(events.DatabaseMoved(url)),
            is_sync=is_sync,
            **(
                pool_options(self.settings.max_connections)
                if self._url is not None
                else self.settings.storage_options
            ),
        )

    @property
    def sync(self) -> "SyncForge":
        """The same for threads without an event loop: `forge.sync.enqueue(...)` is done when it returns.

        Raises InvalidInput when the forge was given a storage, which belongs to an event loop, and nothing beside it.
        """
        if not self._sync:
            from forge_jobs.sync.sync_forge import SyncForge  # few programs need both

            if self._storage_given and self._make_sync is None:
                raise InvalidInput(
                    "forge.sync is used of a Forge that was given a storage, allowed is one with a URL: Forge(url)."
                )
            made = SyncForge(
                cast("Forge", self), self._make_sync or partial(self._made_storage, is_sync=True)
            )
            self._sync.setdefault("sync", made)  # of several threads, that of the first counts
        return self._sync["sync"]

    @property
    def _of_sync(self) -> Producer:
        from forge_jobs.sync.sync_producer import SyncProducer

        self.sync.open()
        return SyncProducer(self.sync)
