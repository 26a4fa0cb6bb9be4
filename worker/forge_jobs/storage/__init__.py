"""Where jobs are kept."""

from typing import TYPE_CHECKING

from forge_jobs.rooms import offering

if TYPE_CHECKING:
    from forge_jobs.storage.interface.storage import Storage
    from forge_jobs.storage.opening import open_storage
else:
    __getattr__ = offering(__name__, "opening", "interface.storage")

__all__ = ["Storage", "open_storage"]
