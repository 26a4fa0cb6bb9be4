"""What handlers share is closed with the forge."""

from pathlib import Path

import pytest

from forge_jobs import Forge


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    return Forge(f"sqlite:///{tmp_path}/queue.sqlite")


async def test_what_was_told_is_closed_with_the_forge_and_the_last_one_first(forge: Forge) -> None:
    closed = []

    async def close_pool() -> None:
        closed.append("pool")
        await forge.storage.now()  # the database is still there

    async def close_client() -> None:
        closed.append("client")

    forge.at_close(close_pool)
    forge.at_close(close_client)
    for _ in range(2):
        async with forge:
            async with forge:
                pass
            assert closed == []
        assert closed == ["client", "pool"]
        closed.clear()


async def test_one_that_fails_keeps_nobody_from_being_closed(forge: Forge) -> None:
    closed = []

    async def close() -> None:
        closed.append("closed")

    async def fail() -> None:
        raise OSError("cannot be closed")

    forge.at_close(close)
    forge.at_close(fail)
    with pytest.raises(OSError, match="cannot be closed"):
        async with forge:
            pass

    assert closed == ["closed"]
