"""The fixtures of pytest: a program's Forge on an empty database. A fixture of the same name in a program's own tests comes before these."""

import os
import pkgutil
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from forge_jobs.forge import Forge
    from forge_jobs.testing.clock import Clock

OPENED = ("forge", "forge_postgres", "forge_inline")


def _with_loop(function: Callable[..., Any]) -> Any:
    # Whoever uses anyio instead has its plugin take pytest's own fixtures.
    return getattr(sys.modules.get("pytest_asyncio"), "fixture", pytest.fixture)(function)


@pytest.fixture
def forge_app(pytestconfig: pytest.Config, request: pytest.FixtureRequest) -> "Forge":
    """The program's Forge, which `forge_app` in pytest's configuration or FORGE_APP names; else a new one, without handlers.

    The test fails when the name is wrong, and when there is none and its module has a Forge or handlers, which would be of another.
    """
    from forge_jobs.errors import InvalidInput
    from forge_jobs.forge import Forge

    try:
        if name := pytestconfig.getini("forge_app") or os.environ.get("FORGE_APP"):
            return _program(name)
        _require_none_in(request)
    except InvalidInput as error:
        pytest.fail(str(error), pytrace=False)
    return Forge()


@pytest.fixture(scope="session")
def forge_postgres_url(pytestconfig: pytest.Config) -> Iterator[str]:
    """The URL of a PostgreSQL for tests: `forge_postgres_url` in pytest's configuration or FORGE_TEST_DATABASE_URL, else one that is started."""
    url = pytestconfig.getini("forge_postgres_url") or os.environ.get("FORGE_TEST_DATABASE_URL")
    if url:
        yield url
        return
    from forge_jobs.testing.local_postgres import LocalPostgres

    with LocalPostgres(settings={"fsync": "off", "full_page_writes": "off"}) as server:
        yield server.url()


@_with_loop
async def forge(forge_app: "Forge") -> "AsyncIterator[Forge]":
    """The program's Forge, open on an empty SQLite in memory; nothing runs by itself."""
    from forge_jobs.testing.database import use_test_database

    async with use_test_database(forge_app):
        yield forge_app


@_with_loop
async def forge_postgres(forge_app: "Forge", forge_postgres_url: str) -> "AsyncIterator[Forge]":
    """The program's Forge, open on an empty schema of a PostgreSQL; nothing runs by itself."""
    from forge_jobs.testing.database import use_test_database

    async with use_test_database(forge_app, postgres=forge_postgres_url):
        yield forge_app


@_with_loop
async def forge_inline(forge_app: "Forge") -> "AsyncIterator[Forge]":
    """The program's Forge, open on an empty SQLite in memory; jobs run as soon as they are enqueued."""
    from forge_jobs.testing.database import use_test_database

    async with use_test_database(forge_app, inline=True):
        yield forge_app


@pytest.fixture
def forge_clock(request: pytest.FixtureRequest) -> "Clock":
    """The clock of the database that the test's other fixture of forge-jobs has made; `forge` when it has none."""
    from forge_jobs.testing.database import clock_of

    opened = next((name for name in OPENED if name in request.fixturenames), "forge")
    return clock_of(request.getfixturevalue(opened))


def _require_none_in(request: pytest.FixtureRequest) -> None:
    from forge_jobs.errors import InvalidInput
    from forge_jobs.forge import Forge
    from forge_jobs.handlers.handler import Handler

    module = request.node.getparent(pytest.Module)
    for name, value in () if module is None else vars(module.obj).items():
        if isinstance(value, Forge | Handler):
            raise InvalidInput(
                f"forge_app is not set, and {name!r} of this test's module would be of another Forge than the fixture's; set it in "
                "pytest's configuration, as forge_app = shop:forge, or write a fixture forge_app that returns your Forge."
            )


def _program(name: str) -> "Forge":
    from forge_jobs.errors import InvalidInput
    from forge_jobs.forge import Forge

    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        program = pkgutil.resolve_name(name) if ":" in name else None
    except (AttributeError, ImportError, ValueError) as error:
        raise InvalidInput(f"forge_app is {name!r}, which cannot be imported: {error}.") from error
    if not isinstance(program, Forge):
        raise InvalidInput(
            f"forge_app is {name!r}, allowed is module:attribute of a Forge, such as shop:forge."
        )
    return program
