"""What a server must be, and whether somebody has closed it for writing."""

from forge_jobs.errors import InvalidInput

OLDEST_SERVER = 14

# Of a standby the server says that it is in recovery: it may become a primary.
CLOSED_FOR_WRITING = (
    "SELECT current_setting('default_transaction_read_only')::boolean AND NOT pg_is_in_recovery()"
)


def check_server(url: str, major: int, minor: int) -> None:
    """Raise InvalidInput when the server is too old for us."""
    if major < OLDEST_SERVER:
        raise InvalidInput(f"{url} is PostgreSQL {major}.{minor}, allowed is {OLDEST_SERVER} or newer.")
