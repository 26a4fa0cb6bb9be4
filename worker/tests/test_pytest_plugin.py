"""The plugin that users' tests get with forge-jobs, as pytest runs it."""

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
from datetime import timedelta
from forge_jobs import Context, Forge

forge = Forge("postgresql://nobody@nowhere.invalid/production")
sent = []

@forge.handler(queue="mail")
async def welcome(ctx: Context, user: str) -> str:
    if user == "nobody":
        raise LookupError("no such user")
    sent.append(user)
    await ctx.enqueue("remind", {"user": user}, delay=timedelta(days=3))
    return f"welcome, {user}"

@forge.handler(queue="mail")
def remind(user: str) -> None:
    sent.append(f"again {user}")
"""

CONFIGURED = """
[pytest]
asyncio_mode = strict
asyncio_default_fixture_loop_scope = function
forge_app = shop:forge
filterwarnings = error
"""

BEGINNING = """
import pytest
from forge_jobs import State
from forge_jobs.testing import assert_enqueued, perform, refute_enqueued, run_due_jobs
from shop import forge as app, sent, welcome

pytestmark = pytest.mark.asyncio
"""


def said(folder: Path, tests: str, *, fails: bool = False, **environment: str) -> str:
    """Run a user's tests in a process of its own, with all plugins that are installed; return what pytest said."""
    (folder / "shop.py").write_text(PROGRAM)
    (folder / "pytest.ini").write_text(CONFIGURED)
    (folder / "test_shop.py").write_text(BEGINNING + tests)
    options = ("-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, **environment},
    )
    assert (done.returncode != 0) is fails, done.stdout + done.stderr
    return done.stdout


def test_a_test_asks_for_the_forge_of_its_program_and_says_what_was_enqueued(tmp_path: Path) -> None:
    said(
        tmp_path,
        """
async def test_what_was_enqueued(forge):
    assert forge is app
    await refute_enqueued(forge, welcome)
    await welcome.enqueue(user="ada")
    await welcome.options(priority=3).enqueue(user="bob")

    [job] = await assert_enqueued(forge, welcome, {"user": "ada"})
    assert job.state is State.PENDING
    await assert_enqueued(forge, "welcome", queue="mail", count=2)
    await assert_enqueued(forge, "welcome", {"user": "bob"}, priority=3)
    await refute_enqueued(forge, "remind")
    assert sent == []

async def test_each_test_begins_with_nothing(forge):
    await refute_enqueued(forge, "welcome")
""",
    )


def test_what_is_missing_is_said_beside_what_is_there(tmp_path: Path) -> None:
    text = said(
        tmp_path,
        """
async def test_other(forge):
    await welcome.enqueue(user="ada")
    await assert_enqueued(forge, welcome, {"user": "bob"}, queue="mail")

async def test_none(forge):
    await assert_enqueued(forge, "remind")

async def test_too_many(forge):
    await welcome.enqueue(user="ada")
    await refute_enqueued(forge, welcome, {"user": "ada"})

async def test_wrong(forge):
    await welcome.enqueue(user="ada")
    await assert_enqueued(forge, welcome, user="ada")
""",
        fails=True,
    )

    assert (
        "No job of kind 'welcome' with user='bob', queue='mail' was enqueued; of this kind there are:" in text
    )
    assert "1: {'user': 'ada'}, queue mail, pending" in text
    assert "No job of kind 'remind' was enqueued; there is none of kind 'remind'." in text
    assert "1 of kind 'welcome' with user='ada' was enqueued, expected none; of this kind there are:" in text
    assert "A job has no field 'user', allowed are attempt, " in text


def test_jobs_run_when_told_alone_or_as_soon_as_they_are_enqueued(tmp_path: Path) -> None:
    said(
        tmp_path,
        """
async def test_told(forge, forge_clock):
    await welcome.enqueue(user="told")
    [job] = await run_due_jobs(forge, raise_on_failure=True)
    assert job.state is State.DONE and sent.pop() == "told"
    [reminder] = await forge_clock.run_until(forge_clock.now + timedelta(days=3))
    assert sent.pop() == "again told"

async def test_alone(forge):
    await welcome.enqueue(user="other")
    assert await perform(forge, welcome, user="alone") == "welcome, alone"
    assert sent == ["alone"]
    sent.clear()
    await assert_enqueued(forge, "welcome", {"user": "other"}, state=State.PENDING)
    await assert_enqueued(forge, "remind", {"user": "alone"}, state=State.SCHEDULED)

async def test_inline(forge_inline, forge_clock):
    job = await welcome.enqueue(user="inline")
    assert await forge_inline.wait(job) == "welcome, inline"
    assert sent.pop() == "inline"
    forge_clock.advance(days=3)
    await welcome.enqueue(user="later")
    assert sorted(sent) == ["again inline", "later"]
    sent.clear()
""".replace("async def test_told", "from datetime import timedelta\n\nasync def test_told"),
    )


def test_what_a_handler_raises_is_raised_in_the_test_that_wants_it(tmp_path: Path) -> None:
    said(
        tmp_path,
        """
async def test_a_failure_is_a_state_of_the_job(forge):
    await welcome.enqueue(user="nobody")
    [job] = await run_due_jobs(forge)
    assert job.state is State.RETRYING

async def test_or_an_exception(forge, forge_clock):
    await welcome.enqueue(user="nobody")
    with pytest.raises(LookupError, match="no such user") as caught:
        await run_due_jobs(forge, raise_on_failure=True)
    assert caught.value.__notes__ == ["Job 1 of kind welcome, attempt 1, raised this."]
    with pytest.raises(LookupError, match="no such user"):
        await forge_clock.run_until(forge_clock.now.replace(year=forge_clock.now.year + 1), raise_on_failure=True)

async def test_of_one_job(forge):
    with pytest.raises(LookupError, match="no such user"):
        await perform(forge, "welcome", user="nobody")
""",
    )


def test_a_job_of_a_transaction_is_tested_on_postgres(tmp_path: Path, postgres_server: str) -> None:
    said(
        tmp_path,
        """
import asyncpg

async def test_commit_and_rollback(forge_postgres, forge_clock, forge_postgres_url):
    forge_clock.set(forge_clock.now.replace(year=2020))
    connection = await asyncpg.connect(forge_postgres_url)
    try:
        async with connection.transaction():
            await welcome.options(connection=connection).enqueue(user="committed")
            await refute_enqueued(forge_postgres, welcome)
        with pytest.raises(RuntimeError):
            async with connection.transaction():
                await welcome.options(connection=connection).enqueue(user="rolled back")
                raise RuntimeError
    finally:
        await connection.close()
    [job] = await assert_enqueued(forge_postgres, welcome, {"user": "committed"}, count=1)
    assert job.created_at.year == 2020
    await run_due_jobs(forge_postgres, raise_on_failure=True)
    assert sent == ["committed"]
""",
        FORGE_TEST_DATABASE_URL=postgres_server,
    )


def test_the_fixtures_of_a_program_come_before_those_of_the_plugin(tmp_path: Path) -> None:
    said(
        tmp_path,
        """
@pytest.fixture
def forge():
    return "mine"

async def test_mine(forge):
    assert forge == "mine"

@pytest.fixture
def forge_app():
    from forge_jobs import Forge
    return Forge()

async def test_another_program(forge_inline):
    assert forge_inline is not app
    assert list(forge_inline.handlers) == []
""",
    )


def test_a_program_that_is_not_there_is_said_in_a_sentence(tmp_path: Path) -> None:
    tests = """
async def test_program(forge): ...
"""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()

    one = said(tmp_path / "one", tests, fails=True, PYTEST_ADDOPTS="-o forge_app=shop:queue")
    two = said(tmp_path / "two", tests, fails=True, PYTEST_ADDOPTS="-o forge_app=shop")

    assert (
        "forge_app is 'shop:queue', which cannot be imported: module 'shop' has no attribute 'queue'" in one
    )
    assert "forge_app is 'shop', allowed is module:attribute of a Forge, such as shop:forge." in two


def test_a_program_that_is_not_named_is_not_taken_for_another(tmp_path: Path) -> None:
    tests = """
async def test_program(forge):
    await welcome.enqueue(user="ada")
"""

    text = said(tmp_path, tests, fails=True, PYTEST_ADDOPTS="-o forge_app=")

    assert "forge_app is not set, and 'app' of this test's module would be of another Forge than the" in text
    assert "Traceback" not in text and "site-packages" not in text and "fixtures.py" not in text


def test_whoever_uses_no_fixture_pays_for_none() -> None:
    program = """
import sys, pytest
before = set(sys.modules)
import forge_jobs.testing.pytest_plugin, forge_jobs.testing.fixtures
print(*sorted(name for name in set(sys.modules) - before if not name.startswith("__editable__")))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=True
    )

    assert {name for name in done.stdout.split() if "forge_jobs" in name} == {
        "forge_jobs",
        "forge_jobs.rooms",
        "forge_jobs.system",
        "forge_jobs.system.stop_signals",
        "forge_jobs.testing",
        "forge_jobs.testing.fixtures",
        "forge_jobs.testing.pytest_plugin",
    }
    assert not {"asyncpg", "sqlite3", "msgspec", "croniter"} & set(done.stdout.split())
