"""Databases with the jobs of other packages, as these have left them."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

FOLDER = Path(__file__).parent


@asynccontextmanager
async def foreign_database(server: str, package: str) -> AsyncIterator[str]:
    """The URL of a database of its own, as the package left it."""
    name = f"forge_test_{secrets.token_hex(4)}"
    url = urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    if server.startswith("postgresql://") and not urlsplit(server).netloc:
        url = f"postgresql:///{name}?{urlsplit(server).query}"
    await run(server, f'CREATE DATABASE "{name}"')
    try:
        await run(url, kept(package))
        yield url
    finally:
        await run(server, f'DROP DATABASE "{name}" WITH (FORCE)')


def kept(package: str) -> str:
    """Return the statements that make what the package left."""
    text = (FOLDER / f"{package}.sql").read_text(encoding="utf-8")
    return f"SET check_function_bodies = off;\n{text}RESET check_function_bodies;\n"  # functions come before their tables


async def run(url: str, script: str) -> None:
    """Run statements in a database."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(script)
    finally:
        await connection.close()


async def rows(url: str, statement: str) -> list[tuple[object, ...]]:
    """Return the rows of a statement."""
    connection = await asyncpg.connect(url)
    try:
        return [tuple(record) for record in await connection.fetch(statement)]
    finally:
        await connection.close()
