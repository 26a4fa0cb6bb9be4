"""A database that cannot hold all text."""

import secrets
from collections.abc import Iterator

import pytest

from forge_jobs import Forge, State, Worker
from forge_jobs.errors import InvalidInput
from forge_jobs.telemetry.events import DatabaseCaveat, Event
from forge_jobs.testing.local_postgres import LocalPostgres


@pytest.fixture(params=["LATIN1", "SQL_ASCII"])
def encoding(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def old(server: LocalPostgres, encoding: str) -> Iterator[str]:
    """The URL of a database with this encoding."""
    name = f"forge_test_{secrets.token_hex(4)}"
    server.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    yield server.url(name)
    server.drop_database(name)


async def test_an_encoding_other_than_utf8_is_said_when_the_database_is_opened(
    old: str, encoding: str, url: str
) -> None:
    for address, expected in ((old, 1), (url, 0)):
        forge, said = Forge(address), list[Event]()
        forge.telemetry.subscribe(said.append)
        async with forge:
            caveats = [event.sentence for event in said if isinstance(event, DatabaseCaveat)]
        assert len(caveats) == expected
        assert all(f"has the encoding {encoding}, allowed is UTF8" in caveat for caveat in caveats)


@pytest.mark.parametrize("encoding", ["LATIN1"])
async def test_what_the_encoding_cannot_hold_is_refused_or_escaped_and_harms_no_other_job(old: str) -> None:
    forge = Forge(old)

    @forge.handler(max_attempts=1)
    async def fail() -> None:
        raise ValueError("left → right")

    @forge.handler
    async def work() -> str:
        return "left → right"

    async with forge:
        with pytest.raises(InvalidInput, match="The database refuses a value"):
            await work.options(key="→").enqueue()
        failing, working = await fail.enqueue(), await work.enqueue()
        await Worker(forge, queues=["default"]).run(until_empty=True)
        failed, worked = await forge.jobs.get(failing.id), await forge.jobs.get(working.id)
    assert (failed.state, worked.state) == (State.DEAD, State.DONE)
    assert failed.error is not None
    assert failed.error.startswith("ValueError: left \\u2192 right")
    assert worked.result == '"left → right"'.encode()
