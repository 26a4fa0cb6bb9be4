"""What the environment says of the program, and of its database."""

from typing import TYPE_CHECKING

from forge_jobs.rooms import offering

if TYPE_CHECKING:
    from forge_jobs.settings import url_file
    from forge_jobs.settings.database_file import CONNECTIONS, LEAST_CONNECTIONS, MOST_CONNECTIONS
else:
    __getattr__ = offering(__name__, "database_file", "url_file")

__all__ = ["CONNECTIONS", "LEAST_CONNECTIONS", "MOST_CONNECTIONS", "url_file"]
