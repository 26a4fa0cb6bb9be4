"""How a forge enqueues and sends signals without an event loop."""

from typing import TYPE_CHECKING

from forge_jobs.client.enqueue import Producer
from forge_jobs.client.signals import Signaller

if TYPE_CHECKING:
    from forge_jobs.settings.environment import Settings
    from forge_jobs.storage.interface.storage import Storage
    from forge_jobs.sync.sync_forge import SyncForge


class SyncProducer(Producer, Signaller):
    """What a forge enqueues and sends signals by, on the storage of its `sync`."""

    def __init__(self, sync: "SyncForge") -> None:
        self._sync = sync
        forge = sync.forge
        self.handlers, self.plugins, self.strange_kinds = forge.handlers, forge.plugins, forge.strange_kinds

    @property
    def settings(self) -> "Settings":
        """Those of the forge."""
        return self._sync.settings

    @property
    def storage(self) -> "Storage":
        """That of `forge.sync`."""
        return self._sync.storage
