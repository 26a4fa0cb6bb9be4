"""Signals in SQLite: kept until their jobs wait for them."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.model.intervention import Deed
from forge_jobs.model.job import Claim
from forge_jobs.model.signal import (
    MOST_KEPT,
    MOST_SIGNALS,
    JobSignal,
    KeptSignal,
    NewSignal,
    NewWait,
    Recipient,
    Signalled,
    SignalMode,
    TokenFacts,
)
from forge_jobs.model.step import JobStep
from forge_jobs.storage.refusals import open_value
from forge_jobs.storage.sqlite import interventions, steps, waits
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.keys import HOLDER
from forge_jobs.storage.sqlite.leadership import leads
from forge_jobs.storage.sqlite.micros import later, moment
from forge_jobs.storage.sqlite.outcomes import proof
from forge_jobs.storage.sqlite.saved_states import HELD, LINK, is_held
from forge_jobs.storage.sqlite.transaction import Transaction

WAIT = """
INSERT INTO step (job_id, number, serial, name, sort, attempt, at, until, signals, for_job) VALUES (?, ?, ?, ?, 'wait', ?, ?, ?, ?, ?)
ON CONFLICT (job_id, name) DO NOTHING
"""

ADD = "INSERT INTO signal (job_id, name, value, codec, at, token) VALUES (?, ?, ?, ?, ?, ?)"

SENT = "SELECT name, token, coalesce(length(value), 0) FROM signal WHERE job_id = ?"

CODECS = """
WITH given AS (
    SELECT :id AS job_id WHERE :id IS NOT NULL
    UNION ALL SELECT job_id FROM job_key WHERE kind = :kind AND key = :key
    UNION ALL SELECT job_id FROM job_tag WHERE tag = :tag
)
SELECT DISTINCT job.kind, job.codec, iif(kind.sealed, kind.codec, NULL)
FROM given CROSS JOIN job ON job.id = given.job_id LEFT JOIN kind ON kind.kind = job.kind
WHERE (:kind IS NULL OR job.kind = :kind) AND NOT EXISTS (SELECT 1 FROM finished WHERE finished.job_id = given.job_id)
"""

SEALED = """
SELECT kind.kind, kind.codec FROM job JOIN kind ON kind.kind = job.kind
WHERE job.id = ? AND kind.sealed AND kind.codec <> ?
"""

TOKEN_FACTS = "SELECT origin, coalesce((SELECT replaced FROM job WHERE id = ?), 0) FROM revision"

TAGGED = """
SELECT job_tag.job_id FROM job_tag CROSS JOIN job ON job.id = job_tag.job_id
WHERE job_tag.tag = :tag AND job_tag.job_id > :after AND (:kind IS NULL OR job.kind = :kind)
  AND NOT EXISTS (SELECT 1 FROM finished WHERE finished.job_id = job_tag.job_id)
ORDER BY job_tag.job_id LIMIT coalesce(:most, -1)
"""

KEPT = "SELECT name, at, value, codec FROM signal WHERE job_id = ? AND step IS NULL ORDER BY id"

FOR_ENDED = """
SELECT job_id FROM waiting
WHERE for_job IS NOT NULL AND (EXISTS (SELECT 1 FROM finished WHERE finished.job_id = waiting.for_job)
                               OR NOT EXISTS (SELECT 1 FROM job WHERE job.id = waiting.for_job))
LIMIT ?
"""

FOR_JOBS = "SELECT count(*) FROM waiting WHERE for_job IS NOT NULL"


class SqliteSignals:
    """`Signals` in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def wait(self, claim: Claim, wait: NewWait) -> JobStep | None:
        def begin(transaction: Transaction) -> JobStep | None:
            if not is_held(transaction, claim):
                return None
            now = transaction.now
            until = None if wait.timeout is None else later(now, timedelta(seconds=wait.timeout))
            made = (claim.job_id, wait.number, wait.serial, wait.name, claim.attempt, now, until)
            transaction.execute(WAIT, (*made, waits.encoded(wait.signals), wait.for_job))
            waits.meet(transaction, claim.job_id, wait.name)
            [kept] = steps.of_job(transaction, claim.job_id, wait.name)
            return kept

        return await self._database.write(begin)

    async def send(
        self, to: Recipient, signal: NewSignal, *, connection: Any = None, by: str | None = None
    ) -> Sequence[tuple[int | None, Signalled]]:
        def send(transaction: Transaction) -> list[tuple[int | None, Signalled]]:
            if to.tag is not None:
                wanted = {"tag": to.tag, "after": to.after, "kind": to.kind, "most": to.most}
                job_ids = [job_id for (job_id,) in transaction.rows(TAGGED, wanted)]
                return [(job_id, sent(transaction, job_id)) for job_id in job_ids]
            job_id = to.job_id if to.key is None else transaction.value(HOLDER, (to.kind, to.key))
            return [(job_id, Signalled.UNKNOWN if job_id is None else sent(transaction, job_id))]

        def sent(transaction: Transaction, job_id: int) -> Signalled:
            answer = _send(transaction, job_id, signal)
            if answer in (Signalled.WOKEN, Signalled.KEPT):
                interventions.note(transaction, [job_id], Deed.SIGNALLED, by, None, None, note=signal.name)
            return answer

        if connection is not None:
            return await self._database.within(connection, send)
        return await self._database.write(send)

    async def codecs(self, to: Recipient, *, connection: Any = None) -> Sequence[tuple[str, str, str | None]]:
        asked = {"id": to.job_id, "kind": to.kind, "key": to.key, "tag": to.tag}
        rows = await self._database.read(lambda transaction: transaction.rows(CODECS, asked), connection)
        return [(kind, codec, sealed) for kind, codec, sealed in rows]

    async def token_facts(
        self, job_id: int | None = None, *, claim: Claim | None = None, connection: Any = None
    ) -> TokenFacts | None:
        def look(transaction: Transaction) -> TokenFacts | None:
            if claim is not None and transaction.row(HELD, proof(claim)) is None:
                return None
            [(origin, replaced)] = transaction.rows(TOKEN_FACTS, (job_id if claim is None else claim.job_id,))
            return TokenFacts(moment(transaction.now), origin, replaced)

        if connection is not None:
            return await self._database.within(connection, look)
        return await self._database.read(look)

    async def of_job(self, job_id: int) -> Sequence[JobSignal]:
        rows = await self._database.read(
            lambda transaction: transaction.rows(
                "SELECT name, at, step FROM signal WHERE job_id = ? ORDER BY id", (job_id,)
            )
        )
        return [JobSignal(name, moment(at), step) for name, at, step in rows]

    async def end_waits_for(self, job_ids: Sequence[int]) -> None:
        await self._database.write(lambda transaction: waits.end_waits_for(transaction, job_ids))

    async def end_waits(self, *, epoch: LeaderEpoch, limit: int = 1000) -> tuple[int, int]:
        if not await self._database.read(lambda transaction: transaction.rows(FOR_ENDED, (1,))):
            return 0, await self._database.read(lambda transaction: transaction.value(FOR_JOBS))

        def end(transaction: Transaction) -> tuple[int, int]:
            if not leads(transaction, epoch):
                return 0, 0
            over = [job_id for (job_id,) in transaction.rows(FOR_ENDED, (limit,))]
            return waits.end_waits(transaction, over), transaction.value(FOR_JOBS)

        return await self._database.write(end)


def kept(transaction: Transaction, job_id: int) -> tuple[KeptSignal, ...]:
    """Return the signals of a job that no wait has taken, in their order."""
    rows = transaction.rows(KEPT, (job_id,))
    return tuple(KeptSignal(name, moment(at), value, codec) for name, at, value, codec in rows)


def _send(transaction: Transaction, job_id: int, signal: NewSignal) -> Signalled:
    times = transaction.value("SELECT coalesce(replaced, 0) FROM job WHERE id = ?", (job_id,))
    if times is None:
        return Signalled.UNKNOWN
    if signal.of_replaced not in (None, times):
        return Signalled.REPLACED
    if transaction.row("SELECT 1 FROM finished WHERE job_id = ?", (job_id,)) is not None:
        return Signalled.ENDED
    sent = transaction.rows(SENT, (job_id,))
    if signal.token is not None and any(token == signal.token for _, token, _ in sent):
        return Signalled.USED
    if signal.mode is SignalMode.FIRST and any(name == signal.name for name, _, _ in sent):
        return Signalled.DUPLICATE
    if signal.value is not None and (sealed := transaction.row(SEALED, (job_id, signal.codec))) is not None:
        raise open_value(signal.name, signal.codec, sealed[0], sealed[1])
    if len(sent) >= MOST_SIGNALS or sum(size for *_, size in sent) + len(signal.value or b"") > MOST_KEPT:
        return Signalled.FULL
    made = (job_id, signal.name, signal.value, signal.codec, transaction.now, signal.token)
    transaction.execute(ADD, made)
    transaction.execute(LINK, (job_id,))
    return Signalled.WOKEN if waits.end_wait(transaction, job_id) else Signalled.KEPT
