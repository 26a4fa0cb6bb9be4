"""`make keep-release`: the databases of this release are kept, for later releases to be tested with.

Each is one SQL text: what makes the tables, then the rows that the code of this release left behind, which are jobs
in every state and what belongs to them. The text is the same each time, unless the tables or that code have changed.
"""

import asyncio
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from forge_jobs.model.flow import Edge, NewFlow, NewNode
from forge_jobs.model.group import Group, encoded
from forge_jobs.model.job import Hold, Postponement, Reason, State
from forge_jobs.model.kind import Kind
from forge_jobs.model.match import Move
from forge_jobs.model.operation import NewOperation
from forge_jobs.model.permit import Permit
from forge_jobs.model.progress import ProgressReport
from forge_jobs.model.signal import NewSignal, Recipient
from forge_jobs.model.statistics import Minute
from forge_jobs.model.step import NewStep, StepSort
from forge_jobs.model.version import Version, VersionState
from forge_jobs.storage.migrate import Migration, migrations
from forge_jobs.storage.postgres import connection, migrator
from forge_jobs.storage.sqlite import schema
from forge_jobs.testing.local_postgres import LocalPostgres
from tests.storage.databases import Database, PostgresDatabase, SqliteDatabase, migrated_storage
from tests.storage.factories import (
    awaiting,
    cron,
    done,
    ended,
    enqueue,
    enqueue_many,
    failed,
    job,
    leader,
    running,
    worker,
)

RELEASES = Path(__file__).parent

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
"""When it was all done."""


@dataclass(frozen=True)
class Dialect:
    """How one database is written down."""

    beginning: str  # what is there before the first migration
    schema: str  # before the name of a table
    columns: str  # the statement that lists those of a table
    literal: str  # what makes one of a column
    insert: str  # a row with the ids that it has, also where a trigger has put one
    numbers: str | None  # the statement that lists what sets the next ids, where rows alone do not


DIALECTS = {
    "postgres": Dialect(
        f"CREATE SCHEMA {{schema}};\n{migrator.MIGRATIONS.strip()};",
        "forge_jobs.",
        "SELECT attname FROM pg_attribute WHERE attrelid = 'forge_jobs.{}'::regclass AND attnum > 0 ORDER BY attnum",
        "quote_nullable({}::text)",
        "INSERT INTO {} OVERRIDING SYSTEM VALUE VALUES ({}) ON CONFLICT DO NOTHING;",  # a trigger may have written it
        "SELECT format('SELECT setval(%L, %s);', schemaname || '.' || sequencename, last_value) FROM pg_sequences "
        "WHERE schemaname = 'forge_jobs' AND last_value IS NOT NULL ORDER BY sequencename",
    ),
    "sqlite": Dialect(
        f"{schema.MIGRATION.strip()};",
        "",
        "SELECT name FROM pragma_table_info('{}')",
        "quote({})",
        "INSERT OR REPLACE INTO {} VALUES ({});",
        None,
    ),
}


def made(kind: str, migration: Migration) -> str:
    """Return the text by which a migration is made in a database of this kind."""
    return f"-- Migration {migration.number}\n\n{_sql(kind, migration.text)}"


def _sql(kind: str, text: str) -> str:
    if kind == "postgres":
        text = connection.PostgresDatabase("postgresql:///any").sql(text).replace(" CONCURRENTLY", "")
    return text.strip()


async def _rows(database: Database) -> list[str]:
    """Return the statements that bring back all rows."""
    dialect = DIALECTS[database.kind]
    deletes, inserts = [], []  # a migration may have put rows there
    for table in await database.tables():
        columns = [name for (name,) in await database.rows(dialect.columns.format(table))]
        literals = " || ', ' || ".join(dialect.literal.format(column) for column in columns)
        name, listed = f"{dialect.schema}{table}", ", ".join(columns)
        rows = await database.rows(f"SELECT {literals} FROM {name} ORDER BY {listed}")
        deletes += [f"DELETE FROM {name};"] * bool(rows)
        inserts += [dialect.insert.format(f"{name} ({listed})", values) for (values,) in rows]
    numbers = [] if dialect.numbers is None else [line for (line,) in await database.rows(dialect.numbers)]
    return [*reversed(deletes), *inserts, *numbers]


async def fill(database: Database) -> None:
    """There are jobs in every state, and what belongs to them."""
    await database.clock.set(MOMENT)
    await database.storage().schema.drop()
    async with migrated_storage(database) as storage:
        await database.run(f"UPDATE {DIALECTS[database.kind].schema}revision SET origin = 'kept'")
        epoch = await leader(storage)
        await storage.kinds.declare([Kind("report", owner="accounting")], by="shop")
        await storage.limits.set("mail", capacity=10, refill=1)
        await storage.permits.settle(Permit("mail", "customer:42", 1.0, MOMENT, timedelta(0), 1.0, id=1), 0.0)
        mail = await storage.queues.set("mail", {"concurrency": 3, "rate_limit": "mail", "max_attempts": 8})
        operator = (await storage.versions.take_over("operator-1")).number
        await storage.versions.put(
            Version("pool", "aaaaaaa1", "1.0", "mail-1-0", VersionState.CURRENT, queues=("mail",)),
            epoch=operator,
        )
        me = await worker(storage, ["default", "mail"], pool="pool", version_id="aaaaaaa1", pod="mail-1")
        await storage.slots.take(mail.id, me, 3)

        sent = await running(storage, me, payload=b'{"to":"ada@example.com"}', key="ada")
        await storage.saved_states.save_for_key(sent, b'"page 3"')
        await storage.claims.finish([done(sent, result=b'"sent"', duration=1.5)])
        await ended(storage, me, State.DEAD, payload=b'{"to":"nobody"}')
        for facts in ({"key": "bob"}, {"max_attempts": 0}):
            await storage.claims.postpone([failed(await running(storage, me, **facts))])
        for reason in (Reason.THROTTLED, Reason.RESCHEDULED):
            put_off = Postponement(await running(storage, me), reason, delay=timedelta(days=1), counted=False)
            await storage.claims.postpone([put_off])

        reporting = await running(storage, me)
        await storage.saved_states.save(reporting, b'{"row":40}')
        await storage.saved_states.set_result(reporting, b"40")
        await storage.progress.write([ProgressReport(reporting, 0.4, "40 of 100 rows")])
        stepping = await running(storage, me)
        await storage.pins.add(stepping)
        await storage.steps.add(stepping, NewStep(1, "charge", result=b'{"receipt":7}'))
        await storage.steps.add(stepping, NewStep(2, "cool off", StepSort.SLEEP, sleep=86_400.0))
        asleep = Postponement(stepping, Reason.SLEEPING, delay=timedelta(days=1), counted=False)
        await storage.claims.postpone([asleep])
        await awaiting(storage, me, timeout=86_400.0)
        for signal in ("other", "approved"):
            signalled = await awaiting(storage, me, signal, for_job=stepping.job_id)
            await storage.signals.send(Recipient(signalled.job_id), NewSignal("approved", b'{"by":"ada"}'))
        await running(storage, me, queue="mail", timeout=timedelta(minutes=5), payload=b'{"to":"cyd"}')
        await storage.jobs.cancel((await running(storage, me, queue="mail", key="dan")).job_id, by="ada")
        await enqueue(storage, delay=timedelta(days=1), key="eve")
        await enqueue(storage, delay=timedelta(days=1), hold=Hold(b"sixteen of bytes", timedelta(days=2)))
        await enqueue_many(storage, 3, payload=b'{"of":"many"}')
        for _ in range(2):
            await enqueue(storage, groups=encoded([Group("customer:42", limit=1)]))
            await enqueue(storage, tenant="ada")
        await enqueue(storage, delay=timedelta(days=1), groups=encoded([Group("customer:42"), Group("all")]))
        tagged = await enqueue(storage, delay=timedelta(days=1), tags=("customer:42", "paid"))
        await enqueue(storage, delay=timedelta(days=1), rerun_of=tagged)
        asked = NewOperation(Move.CANCEL, [State.PENDING], "ada", tags=("nobody",))
        await storage.operations.cancel((await storage.operations.add(asked)).id)
        nodes = [
            NewNode("charge", job()),
            NewNode("ship", job(), after=(Edge(0),)),
            NewNode("mail", job(), after=(Edge(1),)),
        ]
        ended_flow, _ = await storage.flows.start(NewFlow("order", nodes))
        await storage.flows.start(NewFlow("order", nodes[:2], timedelta(days=1)))
        await storage.flows.cancel(ended_flow)
        await database.clock.advance(seconds=1)
        await enqueue(storage, queue="mail", priority=-5, codec="msgpack", payload=b"\x81\xa2to\xa3fay")

        for number in (1, 2):
            counts = {
                ("default", "work"): {"done": 40, "failed": 2, "wait:3": 42, "run:6": 42, "run_us": 2_100_000}
            }
            await storage.statistics.hand_in(Minute(7, number, timedelta(0), counts))
            if number == 1:
                await storage.statistics.add_up(epoch=epoch)

        fires_at = MOMENT + timedelta(seconds=1)
        await storage.crons.set(cron(next_fire_at=fires_at))
        declared = cron(
            "often",
            expression="@hourly",
            declared="said",
            declared_before=("before",),
            groups='{"serial":{}}',
        )
        await storage.crons.declare(declared, last_declared=None)
        await storage.fires.fire(await storage.crons.get("nightly"), [fires_at], None, epoch=epoch)


async def _keep(database: Database, folder: Path) -> None:
    await fill(database)
    beginning = _sql(database.kind, DIALECTS[database.kind].beginning)
    making = [beginning, *(made(database.kind, each) for each in migrations(database.kind))]
    rows = "\n".join(await _rows(database))
    text = "\n\n\n".join([*making, f"-- What its own code has left\n\n{rows}\n"])
    (folder / f"{database.kind}.sql").write_text(text, encoding="utf-8")


async def main(release: str) -> None:
    folder = RELEASES / release
    folder.mkdir(exist_ok=True)
    with LocalPostgres() as server, tempfile.TemporaryDirectory() as place:
        postgres = PostgresDatabase(server.url(), "kept")
        await postgres.create()
        for database in (postgres, SqliteDatabase(Path(place, "kept.sqlite"))):
            await _keep(database, folder)
        await postgres.drop()
    print(f"The databases of {release} are kept in {folder}.")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
