"""What the environment says of the program, and of its database."""

from forge_jobs.settings import url_file
from forge_jobs.settings.database_file import CONNECTIONS, LEAST_CONNECTIONS, MOST_CONNECTIONS

__all__ = ["CONNECTIONS", "LEAST_CONNECTIONS", "MOST_CONNECTIONS", "url_file"]
