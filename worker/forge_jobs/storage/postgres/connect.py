"""One new connection to the server that a URL names, and what it means when there is none."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import asyncpg

from forge_jobs.errors import InvalidInput, StorageDown, StorageRefused, StorageUnavailable
from forge_jobs.settings.database_url import redact
from forge_jobs.storage.postgres.array_types import CONNECTION
from forge_jobs.storage.postgres.connect_arguments import ConnectArguments, connect_arguments
from forge_jobs.storage.postgres.down import Connect, ServerPlace
from forge_jobs.storage.postgres.driver_errors import DRIVER_ERRORS, translated


def arguments_of(url: str) -> ConnectArguments:
    """Return what the URL tells the driver. Raises InvalidInput."""
    try:
        return connect_arguments(url)
    except (OSError, ValueError) as error:  # a certificate that cannot be read
        raise InvalidInput(f"The database URL {redact(url)} is not valid: {error}.") from error


async def connect(
    url: str,
    options: Mapping[str, Any],
    *,
    schema: str,
    is_down: Callable[[BaseException, Sequence[ServerPlace], Connect], Awaitable[bool]],
) -> asyncpg.Connection:
    """Return a connection, with these `options` of the driver besides those of the URL.

    Raises InvalidInput, StorageDown when `is_down` says of the driver's error that nobody can use the
    database, and else what `translated` makes of it.
    """
    arguments = arguments_of(url)
    # In the end: the driver's pool has a class of its own among the options.
    all_options = {**arguments.options, **options, "connection_class": CONNECTION}

    async def connect_to(place: ServerPlace) -> asyncpg.Connection:
        return await asyncpg.connect(arguments.dsn, **{**all_options, "host": place.host, "port": place.port})

    try:
        return await asyncpg.connect(arguments.dsn, **all_options)
    except DRIVER_ERRORS as error:
        ours = translated(error, url=redact(url), schema=schema)
        if ours is None:
            raise
        if isinstance(ours, StorageRefused):  # who was not let in was not heard either
            ours = StorageUnavailable(str(ours))
        if await is_down(error, arguments.places, connect_to):
            ours = StorageDown(str(ours))
        raise ours from error
    except ValueError as error:
        raise InvalidInput(f"The database URL {redact(url)} is not valid: {error}.") from error
