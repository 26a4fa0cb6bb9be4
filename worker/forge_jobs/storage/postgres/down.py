"""Whether the database is down: nobody can use it, and not only this process.

So it is where the server itself says that it takes nobody (it starts, stops or recovers), or where nothing listens
at any of its addresses. On this machine that means something only where the server is on it, too: a proxy
beside us is away for us alone, and so is a tunnel, at whose other end the server may have the very address that
ours has at this one. Whatever else keeps us from the database may keep others from nothing.
"""

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from forge_jobs.storage.postgres.driver_errors import DRIVER_ERRORS

# What the server sees of both ends of a connection; nothing through its own socket.
ENDS = "SELECT host(inet_server_addr()), inet_server_port(), host(inet_client_addr()), inet_client_port()"

REFUSALS = (ConnectionRefusedError, FileNotFoundError, asyncpg.CannotConnectNowError)


@dataclass(frozen=True, slots=True)
class ServerPlace:
    """Where a server may be: a name, an address, or the folder of a unix socket."""

    host: str
    port: int

    @property
    def is_socket(self) -> bool:
        """Whether it is in the file system."""
        return self.host.startswith("/")

    @property
    def is_here(self) -> bool:
        """Whether the address is one of this machine's own."""
        address = ipaddress.ip_address(self.host.partition("%")[0])
        if address.is_loopback or address.is_unspecified:
            return True
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:  # nothing is sent
                probe.connect((self.host, self.port))
                return bool(probe.getsockname()[0] == self.host)
        except OSError:
            return False


UNKNOWN = ServerPlace("", 0)
"""Of a server to which something leads us that may be on this machine."""

Connect = Callable[[ServerPlace], Awaitable[asyncpg.Connection]]


async def place_of(connection: asyncpg.Connection) -> ServerPlace | None:
    """Return where the server says that it is, None at the end of its own unix socket, UNKNOWN where something leads us to it.

    A server keeps a lock beside its socket, and sees us where we see ourselves unless somebody connects in our name.
    """
    host, port, our_host, our_port = await connection.fetchrow(ENDS)
    if host is None:
        path = connection._addr
        return None if isinstance(path, str) and Path(f"{path}.lock").exists() else UNKNOWN
    name = connection._transport.get_extra_info("sockname")
    is_direct = isinstance(name, tuple) and (name[0].partition("%")[0], name[1]) == (our_host, our_port)
    return ServerPlace(host, port) if is_direct else UNKNOWN


async def is_down(
    error: BaseException, places: Sequence[ServerPlace], server: ServerPlace | None, connect: Connect
) -> bool:
    """Whether `error`, with which connecting to these places ended, means that nobody can use the database.

    Of several, each one is asked. `server` is what `place_of` returned.
    """
    is_summary = type(error) is OSError and error.errno is None  # of what several addresses said
    if not is_summary and not isinstance(error, REFUSALS):
        return False
    addresses = await _addresses(places)
    for address in addresses:
        refusal = error if len(addresses) == 1 else await _refusal(address, connect)
        if not _is_refused(refusal, address, server, is_asked=server in addresses):
            return False
    return bool(addresses)


async def _addresses(places: Sequence[ServerPlace]) -> list[ServerPlace]:
    """Return the addresses of all places; none when one cannot be found."""
    found: dict[ServerPlace, None] = {}
    for place in places:
        if place.is_socket:
            found[place] = None
            continue
        try:
            named = await asyncio.get_running_loop().getaddrinfo(
                place.host, place.port, type=socket.SOCK_STREAM
            )
        except OSError:
            return []
        found.update((ServerPlace(str(address[0]), place.port), None) for *_, address in named)
    return list(found)


async def _refusal(address: ServerPlace, connect: Connect) -> BaseException | None:
    try:
        connection = await connect(address)
    except (*DRIVER_ERRORS, ValueError) as error:
        return error
    connection.terminate()
    return None


def _is_refused(
    error: BaseException | None, address: ServerPlace, server: ServerPlace | None, *, is_asked: bool
) -> bool:
    """Whether nobody gets in at this address; `is_asked` when the server's own is among those that are asked."""
    match error:
        case asyncpg.CannotConnectNowError():
            return True
        case FileNotFoundError() | ConnectionRefusedError() if address.is_socket:
            return server is None
        case ConnectionRefusedError():
            return is_asked or not address.is_here
        case OSError(errno=errno.EADDRNOTAVAIL):  # this machine has no such address: ::1 without IPv6
            return is_asked and address.is_here
    return False
