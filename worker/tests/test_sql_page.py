"""What docs/sql.md says in SQL works as it stands there."""

import re
from pathlib import Path

import asyncpg

from tests.storage.conftest import postgres  # noqa: F401  a fixture
from tests.storage.databases import Database

PAGE = Path(__file__).parents[2] / "docs" / "sql.md"


async def test_every_statement_of_the_page_runs_and_the_jobs_are_there(postgres: Database) -> None:  # noqa: F811
    connection = await asyncpg.connect(postgres.url)
    transaction = connection.transaction()
    await transaction.start()
    try:
        for text in re.findall(
            r"^```sql\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
        ):
            await connection.execute(text)

        jobs = await connection.fetch(
            "SELECT kind, convert_from(payload, 'UTF8') AS payload, key FROM forge_jobs.jobs ORDER BY id"
        )
        assert [tuple(job) for job in jobs] == [
            ("welcome", '{"user": 1}', None),  # the reminder was removed
            ("welcome", '{"user": 2}', None),
            ("welcome", '{"user": 3}', None),
            ("bill", '{"customer": 2}', "bill:2"),
            ("bill", '{"customer": 3}', "bill:3"),
        ]
    finally:
        await transaction.rollback()
        await connection.close()


async def test_the_options_of_the_page_are_those_of_the_function(postgres: Database) -> None:  # noqa: F811
    rows = await postgres.rows(
        "SELECT unnest(proargnames) FROM pg_proc WHERE proname = 'enqueue' AND pronamespace = 'forge_jobs'::regnamespace"
    )
    table = re.findall(r"^\| (`.*?) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)

    assert {name for cell in table for name in re.findall(r"`(\w+)`", cell)} == {name for (name,) in rows} - {
        "kind",
        "payload",
    }
