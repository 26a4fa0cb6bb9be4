"""The kinds `echo` and `sleep`, and how a program gets the built-in kinds."""

import pytest

from forge_jobs import Forge, builtin
from forge_jobs.cli import program
from forge_jobs.errors import InvalidInput, InvalidPayload
from tests.builtin.conftest import Runs


async def test_echo_returns_its_payload(runs: Runs) -> None:
    assert await runs.done("echo", hello="world", n=[1, None]) == {"hello": "world", "n": [1, None]}
    assert await runs.done("echo") == {}


async def test_sleep_returns_after_its_time(runs: Runs) -> None:
    job = await runs.ended(await runs.begin("sleep", seconds=0.05))

    assert job.started_at and job.finished_at
    assert (job.finished_at - job.started_at).total_seconds() >= 0.04


@pytest.mark.parametrize("seconds", [-1, "long", 8 * 86_400])
async def test_sleep_refuses_what_is_no_time(runs: Runs, seconds: object) -> None:
    with pytest.raises(InvalidPayload):
        await runs.begin("sleep", seconds=seconds)


def test_the_command_line_finds_a_program_with_the_built_in_kinds() -> None:
    assert set(program.load("forge_jobs.builtin:forge").handlers) == {"http", "command", "echo", "sleep"}


def test_a_kind_of_the_program_s_own_is_not_replaced() -> None:
    forge = Forge()
    forge.handler(kind="echo")(lambda: None)

    with pytest.raises(InvalidInput, match="'echo' has a handler already"):
        builtin.register(forge)
