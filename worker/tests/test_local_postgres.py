"""A PostgreSQL to throw away: it starts, stops, comes back, and leaves nothing."""

import importlib.util
import signal
import subprocess
import sys
import time
from pathlib import Path

import asyncpg
import pytest

from forge_jobs.errors import ForgeError
from forge_jobs.testing.local_postgres import LocalPostgres

FAST = {"fsync": "off", "autovacuum": "off"}

VICTIM = """
import sys
from forge_jobs.testing.local_postgres import LocalPostgres
server = LocalPostgres(settings={"fsync": "off"})
server.start()
print(server.log.parent, flush=True)
sys.stdin.read()
"""


async def ask(url: str, sql: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def test_it_answers_with_the_settings_that_were_given() -> None:
    with LocalPostgres(settings={**FAST, "work_mem": "7MB"}) as server:
        assert await ask(server.url(), "SHOW work_mem") == "7MB"
        assert server.running
        folder = server.log.parent

    assert not server.running
    assert not folder.exists()


async def test_databases_are_made_copied_and_dropped() -> None:
    with LocalPostgres(settings=FAST) as server:
        first = server.create_database('odd "name" ü')
        await ask(first, "CREATE TABLE t AS SELECT 7 AS n")
        second = server.create_database("copy", template='odd "name" ü')

        assert await ask(second, "SELECT n FROM t") == 7
        server.drop_database("copy")
        server.drop_database("copy")
        with pytest.raises(asyncpg.InvalidCatalogNameError):
            await ask(second, "SELECT 1")


@pytest.mark.parametrize("how", ["stop", "immediately", "kill"])
async def test_its_data_survive_a_restart(how: str) -> None:
    with LocalPostgres(settings=FAST) as server:
        await ask(server.url(), "CREATE TABLE t AS SELECT 7 AS n")
        if how == "kill":
            server.kill()
            assert not server.running
            server.start()
        else:
            server.restart(immediate=how == "immediately")

        assert await ask(server.url(), "SELECT n FROM t") == 7


class SlowToStart(LocalPostgres):
    """A server on a machine with little time."""

    def _command(self) -> list[str]:
        return ["/bin/sh", "-c", 'sleep 0.2; exec "$@"', "sh", *super()._command()]


async def test_what_a_killed_server_left_is_not_taken_for_one_that_is_ready() -> None:
    with SlowToStart(settings=FAST) as server:
        server.kill()
        server.start()

        assert await ask(server.url(), "SELECT 7") == 7


async def test_two_run_at_once_and_one_is_reached_by_tcp() -> None:
    with LocalPostgres(settings=FAST) as one, LocalPostgres(settings=FAST, port=0) as two:
        assert f"@127.0.0.1:{two.port}/" in two.url()
        places = [await ask(server.url(), "SHOW data_directory") for server in (one, two)]

    assert places[0] != places[1]


UNREACHABLE = """
from forge_jobs.testing.local_postgres import LocalPostgres
may_enter = LocalPostgres._may_enter
LocalPostgres._may_enter = lambda self, folder: folder.name != "pginstall" and may_enter(self, folder)
"""
"""As where the package lies in a private folder, which the server's user cannot enter."""


@pytest.mark.parametrize("victim", [VICTIM, UNREACHABLE + VICTIM], ids=["installed", "copied"])
def test_it_ends_with_the_process_that_started_it_however_that_dies(victim: str) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", victim], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        assert (folder / "log").exists()
        process.send_signal(signal.SIGKILL)

    deadline = time.monotonic() + 20
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.01)  # nothing tells us when somebody else's process is gone
    assert not folder.exists()


def test_a_setting_that_it_refuses_is_an_error_of_one_sentence() -> None:
    with pytest.raises(ForgeError, match="nonsense"), LocalPostgres(settings={"nonsense": 1}):
        pass


def test_without_the_package_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(ForgeError, match="pip install"), LocalPostgres():
        pass
