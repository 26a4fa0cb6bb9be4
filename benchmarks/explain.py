"""What the statements of a job cost with a thousand and with a million jobs waiting.

Each is explained as the library runs it: prepared, on a connection with its lane's settings,
in a transaction that is rolled back. The plans go to docs/explain.
"""

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from benchmarks import child
from benchmarks.bench import Bench
from benchmarks.line import AtMostTimes, Line
from benchmarks.sides.bare_postgres import ANY_ERA, FIRST_ATTEMPT, QUEUE_ID, REGISTER, WORKER_ID
from benchmarks.workload import BARE_BATCH, ENCODED, KIND, QUEUE
from forge_jobs.storage.interface.claims import START
from forge_jobs.storage.postgres.chores import DUE as DUE_CHORES
from forge_jobs.storage.postgres.claiming import CLAIM, WITH_TURNS
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.enqueue import ENQUEUE_PLAIN
from forge_jobs.storage.postgres.outcomes import FINISH_PLAIN
from forge_jobs.storage.postgres.permits import FIRST_KEY, SWEEP_KEYS, SWEEP_PERMITS
from forge_jobs.storage.postgres.schedule import MAKE_PENDING
from forge_jobs.storage.postgres.session_settings import CLAIMS, WALKS, pinned
from forge_jobs.storage.postgres.spend_log import FOLD, FOLD_KNOWN, LONG, READ, SEPARATOR, WRITE

FOLDER = Path(__file__).parents[1] / "docs" / "explain"
SMALL, LARGE = 1_000, 1_000_000
LARGE_FACTOR = 10  # times the jobs of a run
DUE = 100  # scheduled jobs whose time has come
DUE_SECONDS = 1.0
DAY = 86_400.0
SWEPT = 1000  # permits, and keys, in one look of the sweep
KEYED = """
INSERT INTO forge_jobs.rate_limit (scope, capacity, refill, tokens, refilled_at) VALUES ('keys', 5, 1, 5, now());
INSERT INTO forge_jobs.rate_key (scope, key, full_at) SELECT 'keys', number, number - {due} FROM generate_series(1, {waiting}) AS number;
INSERT INTO forge_jobs.permit (job_id, scope, key, take, cost, full_at, until)
SELECT number, 'keys', number, 1, 1, 5, now() + (number - {due}) * interval '1 minute'
FROM generate_series(1, {waiting}) AS number
"""
FAIR = """
INSERT INTO forge_jobs.queue (name) VALUES ('fair');
WITH made AS (
    INSERT INTO forge_jobs.job (queue_id, priority, max_attempts, kind, codec, created_at, payload, links, tenant)
    SELECT queue.id, 0, 5, '{kind}', 'json', now(), {payload}, 8, 'tenant ' || number % 1000
    FROM forge_jobs.queue CROSS JOIN generate_series(1, {waiting}) AS number WHERE queue.name = 'fair'
    RETURNING id, queue_id
)
INSERT INTO forge_jobs.ready (job_id, pos, queue_id, attempt, priority, since)
SELECT id, forge_jobs.micros(now()) + id * 10, queue_id, 0, 0, forge_jobs.micros(now()) FROM made ORDER BY id
"""
LOGGED = """
INSERT INTO forge_jobs.rate_limit (scope, capacity, refill, tokens, refilled_at, is_logged) VALUES ('logged', 5, 1, 5, now(), true);
INSERT INTO forge_jobs.rate_key (scope, key, full_at) SELECT 'logged', number, 1 FROM generate_series(1, {waiting}) AS number;
INSERT INTO forge_jobs.spend_log (scope, behind, stamp, keys, full_at)
SELECT 'logged', line - 1, line, string_agg((1 + (line * {batch} + number) % {waiting})::text, chr(31)), string_agg(float8send(2), '')
FROM generate_series(1, {lines}) AS line CROSS JOIN generate_series(1, {batch}) AS number GROUP BY line ORDER BY line
"""
LATER = """
INSERT INTO forge_jobs.time_limit (job_id, deadline, look_at)
SELECT -number, moment, moment FROM generate_series(1, {waiting}) AS number CROSS JOIN LATERAL (SELECT now() + interval '1 day') AS later (moment);
INSERT INTO forge_jobs.waiting (job_id, queue_id, attempt, step) SELECT -number, 1, 0, 'approval' FROM generate_series(1, {waiting}) AS number
"""
BEHIND = 5  # rows that others have written since
HOT_KEYS = 10_000  # of which all rows of a log are, where whoever wrote them folds it
NESTED = """
LOAD 'auto_explain';
SET auto_explain.log_min_duration = 0; SET auto_explain.log_nested_statements = on; SET auto_explain.log_analyze = on;
SET auto_explain.log_buffers = on; SET client_min_messages = log
"""
UNLOCK = "UPDATE forge_jobs.ready SET pos = pos WHERE xmax <> 0"
"""A claim that is rolled back leaves its rows as if somebody had them locked, and the next one passes over them."""

TAKEN_SHARE = 10  # a tenth of the jobs is taken while a transaction holds on to the dead rows
PIN = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM forge_jobs.queue"


@dataclass(frozen=True, slots=True)
class Plan:
    """One statement, explained: its plan as text, the pages that it touched, and its milliseconds."""

    name: str
    waiting: int
    text: str
    buffers: int
    milliseconds: float

    @property
    def file(self) -> str:
        return f"{self.name.replace(' ', '-').replace(',', '')}-{self.waiting}.txt"


def touched(plan: Mapping[str, Any]) -> int:
    """Return the pages that a whole statement touched, from EXPLAIN's JSON of its top node.

    A node includes what the nodes below it touched, and a part of WITH is included where it
    is read. A part that nothing reads is run after the rest, so it is added.
    """
    read = {node["CTE Name"] for node in _nodes(plan) if "CTE Name" in node}
    unread = [
        node
        for node in _nodes(plan)
        if (name := node.get("Subplan Name", "")).startswith("CTE ") and name.removeprefix("CTE ") not in read
    ]
    return sum(_buffers(node) for node in [plan, *unread])


def _nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from _nodes(below)


def _buffers(node: Mapping[str, Any]) -> int:
    return int(node.get("Shared Hit Blocks", 0)) + int(node.get("Shared Read Blocks", 0))


def literal(value: object) -> str:
    """Return a value as SQL text, for EXECUTE."""
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f"'\\x{value.hex()}'"
    if isinstance(value, list):
        return "'{" + ",".join(str(item) for item in value) + "}'"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return str(value)  # numbers, and True and False as PostgreSQL spells them too


class Explainer:
    """Explains statements in one database with `waiting` jobs."""

    def __init__(self, url: str, waiting: int) -> None:
        self.waiting = waiting
        self.plans: list[Plan] = []
        self._url = url
        self._sql = PostgresDatabase(url).sql

    async def explain(
        self,
        name: str,
        text: str,
        arguments: Sequence[object],
        settings: Mapping[str, str],
        *,
        calls: bool = False,
    ) -> None:
        """The statement is explained, and what it `calls` in a function; nothing of it stays."""
        within: list[str] = []
        connection = await asyncpg.connect(self._url)
        try:
            await connection.execute(pinned(connection.get_server_version().major, settings))
            await connection.execute(f"PREPARE statement AS {self._sql(text)}")
            execute = f"EXECUTE statement({', '.join(map(literal, arguments))})"
            await self._rolled_back(connection, execute)
            analysed = json.loads(
                await self._rolled_back(connection, f"EXPLAIN (ANALYZE, BUFFERS, FORMAT json) {execute}")
            )
            if calls:
                connection.add_log_listener(lambda _, said: within.append(said.message))
                await connection.execute(NESTED)
            shown = await self._rolled_back(connection, f"EXPLAIN (ANALYZE, BUFFERS) {execute}")
        finally:
            await connection.close()
        plan = analysed[0]
        shown = "\n\n".join([shown, *(part for part in within if "plan:" in part and "EXPLAIN" not in part)])
        self.plans.append(Plan(name, self.waiting, shown, touched(plan["Plan"]), plan["Execution Time"]))

    async def _rolled_back(self, connection: asyncpg.Connection, sql: str) -> str:
        transaction = connection.transaction()
        await transaction.start()
        try:
            return "\n".join(str(record[0]) for record in await connection.fetch(sql))
        finally:
            await transaction.rollback()

    async def run(self) -> None:
        """Every statement of a job is explained."""
        connection = await asyncpg.connect(self._url)
        await connection.execute(pinned(connection.get_server_version().major, CLAIMS))
        await connection.execute(self._sql(REGISTER), WORKER_ID)
        queue_id: int = await connection.fetchval(self._sql(QUEUE_ID))
        taken, hint = await self._take(connection, queue_id, BARE_BATCH)
        await self._claims("claim", queue_id, hint)
        finish = (WORKER_ID, taken, [FIRST_ATTEMPT] * len(taken), [0.0] * len(taken), None)
        await self.explain("finish", FINISH_PLAIN, finish, WALKS)
        await asyncio.sleep(DUE_SECONDS)
        await self.explain("make-pending", MAKE_PENDING, (DUE, "-infinity", None), {})
        await self.explain("sweep of permits", SWEEP_PERMITS, (SWEPT,), {})
        await self.explain("sweep of keys", SWEEP_KEYS, (*FIRST_KEY, SWEPT), {})
        await self.explain("look for chores", DUE_CHORES, ("1 second", "-infinity", 0, "15 seconds"), {})
        await self.spends()
        await self.turns(connection)
        enqueue = (QUEUE, 0, None, None, KIND, "json", ENCODED, None, None, False, True)
        await self.explain("enqueue", ENQUEUE_PLAIN, enqueue, {})
        pin = await asyncpg.connect(self._url)
        await pin.execute(PIN)
        _, hint = await self._take(connection, queue_id, max(BARE_BATCH, self.waiting // TAKEN_SHARE), hint)
        await self._claims("claim beside dead rows", queue_id, hint)
        await pin.close()
        await connection.close()

    async def turns(self, connection: asyncpg.Connection) -> None:
        """The claim of jobs whose tenants take turns is explained."""
        queue_id: int = await connection.fetchval("SELECT id FROM forge_jobs.queue WHERE name = 'fair'")
        arguments = (queue_id, WORKER_ID, BARE_BATCH, *START, 0, *ANY_ERA)
        await self._claim("claim with turns", WITH_TURNS[CLAIM], arguments)

    async def spends(self) -> None:
        """What a claim does with the spend log of a rate limit by key is explained, and how that is folded."""
        keys = SEPARATOR.join(str(number) for number in range(1, BARE_BATCH + 1))
        await self.explain("read of spends", READ, ("logged", LONG - BEHIND, keys), {})
        jobs = ",".join(map(str, range(1, BARE_BATCH + 1)))
        claim = (0, DAY, jobs, LONG + 1, keys, [2.0] * BARE_BATCH)
        await self.explain("write of spends", WRITE, ("logged", LONG, LONG, *claim), {})
        await self.explain("fold of spends", FOLD, ("logged", LONG), {}, calls=True)
        known = SEPARATOR.join(str(number) for number in range(1, HOT_KEYS + 1)), [2.0] * HOT_KEYS
        await self.explain("fold of known spends", FOLD_KNOWN, ("logged", LONG, LONG, 1, *known), {})

    async def _claims(self, name: str, queue_id: int, hint: tuple[int, int]) -> None:
        for place, at in (("with a hint", hint), ("without a hint", START)):
            arguments = (queue_id, WORKER_ID, BARE_BATCH, *at, 0, *ANY_ERA)
            await self._claim(f"{name}, {place}", CLAIM, arguments)

    async def _claim(self, name: str, text: str, arguments: Sequence[object]) -> None:
        await self.explain(name, text, arguments, CLAIMS)
        connection = await asyncpg.connect(self._url)
        await connection.execute(UNLOCK)
        await connection.execute("VACUUM (ANALYZE) forge_jobs.ready")
        await connection.close()

    async def _take(
        self, connection: asyncpg.Connection, queue_id: int, jobs: int, hint: tuple[int, int] = START
    ) -> tuple[list[int], tuple[int, int]]:
        """Claim so many jobs; return their ids, and where the last one stood."""
        taken: list[int] = []
        while len(taken) < jobs:
            limit = min(BARE_BATCH, jobs - len(taken))
            records = await connection.fetch(self._sql(CLAIM), queue_id, WORKER_ID, limit, *hint, 0, *ANY_ERA)
            if not records:
                break
            taken += [record["id"] for record in records]
            hint = max((record["priority"], record["pos"]) for record in records)
        return taken, hint


def fillings(waiting: int) -> list[str]:
    """Return statements after which so many rows are in other tables than those of jobs, where plans walk over them."""
    return [
        KEYED.format(due=DUE, waiting=waiting),
        LOGGED.format(waiting=waiting, lines=LONG, batch=BARE_BATCH),
        FAIR.format(waiting=waiting, kind=KIND, payload=literal(ENCODED)),
        LATER.format(waiting=waiting),
    ]


def plans(bench: Bench, waiting: int) -> list[Plan]:
    """Return the plans in a database with so many jobs waiting, and as many scheduled for tomorrow."""
    with bench.doing(f"explaining with {waiting:,} jobs waiting"), bench.server.fresh(name="side") as url:
        child.run("forge.fill", url=url, jobs=waiting)
        child.run("forge.fill", url=url, jobs=waiting, delay=DAY)
        child.run("forge.fill", url=url, jobs=DUE, delay=DUE_SECONDS)
        for rows in fillings(waiting):
            bench.server.execute(rows)
        bench.server.execute("VACUUM (ANALYZE)")
        explainer = Explainer(url, waiting)
        asyncio.run(explainer.run())
        return explainer.plans


def write(found: Sequence[Plan]) -> None:
    """The plans are files in docs/explain."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for plan in found:
        head = f"{plan.name}, {plan.waiting:,} jobs waiting: {plan.buffers} pages, {plan.milliseconds:.3f} ms"
        (FOLDER / plan.file).write_text(f"{head}\n\n{plan.text}\n", encoding="utf-8")


def measure(bench: Bench) -> list[Line]:
    """Return pages and time of each statement with many jobs waiting, beside those with a thousand."""
    large = bench.jobs * LARGE_FACTOR
    few, many = plans(bench, SMALL), plans(bench, large)
    if large == LARGE:
        write([*few, *many])
        bench.say(f"plans written to {FOLDER}")
    else:
        bench.say(f"plans not written: they are of {large:,} jobs, those in {FOLDER} of {LARGE:,}")
    lines = []
    for small, big in zip(few, many, strict=True):
        beside = f"with {SMALL:,} waiting"
        goal = AtMostTimes(1.5) if small.name.startswith("claim, ") else None
        what = f"{big.name}, {large:,} waiting"
        lines.append(Line(what, "pages", [big.buffers], beside, [small.buffers], goal))
        lines.append(Line(what, "ms", [big.milliseconds], beside, [small.milliseconds]))
    return lines
