"""Claims in PostgreSQL: jobs are taken by workers, which write down what became of them (`outcomes`).

A claim commits without waiting for the disk: one that is lost in a crash of the server merely leaves
its job ready, and every later finish flushes what came before it. A finish waits for the disk.
"""

from collections.abc import Sequence, Set
from contextlib import suppress
from datetime import timedelta
from itertools import accumulate, chain
from operator import attrgetter
from typing import Any

from forge_jobs.errors import ForgeError
from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.model.flow import is_node
from forge_jobs.model.job import Claim, End, Postponement, State
from forge_jobs.model.links import FAIR
from forge_jobs.model.moments import MICROSECOND
from forge_jobs.model.tenant import END_ALONE, has_tenant
from forge_jobs.model.worker import Standing
from forge_jobs.storage.interface.claims import START, AskedQueue, Front, Hint
from forge_jobs.storage.postgres import (
    flow_growth,
    groups,
    meta,
    node_inputs,
    outcomes,
    pins,
    reports,
    tenants,
    time_limits,
)
from forge_jobs.storage.postgres.claiming import (
    CLAIM,
    CLAIM_FITTING,
    CLAIM_FROM,
    CLAIM_PINNED,
    CLAIM_STRETCHES,
    CLAIM_WITHOUT_KINDS,
    FRONT,
    FRONT_FITTING,
    FRONT_WITHOUT_KINDS,
    WITH_TURNS,
)
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.held import HELD, LOST
from forge_jobs.storage.postgres.outcomes import (
    FINISH_PLAIN,
    HAND_BACK,
    HAND_BACK_KEYED,
    HAND_BACK_LINKED,
    POSTPONE,
    POSTPONE_ITEMS,
    POSTPONE_KEYED,
    POSTPONE_LINKED,
    POSTPONE_WAITS,
)
from forge_jobs.storage.postgres.session_settings import PLANNED_AS_WALKS
from forge_jobs.storage.stretches import stretches

ID, JOB, PLACE = attrgetter("job_id"), attrgetter("claim.job_id"), attrgetter("priority", "pos")

ALONE = frozenset({None})  # the `links` of jobs that are linked to nothing
DONE = State.DONE  # a look-up in an Enum is slower than one thinks

PAYLOAD = """
SELECT job.payload, saved_state.state FROM {schema}.claimed
JOIN {schema}.job ON job.id = claimed.job_id LEFT JOIN {schema}.saved_state ON saved_state.job_id = claimed.job_id
WHERE claimed.job_id = $1 AND claimed.worker_id = $2 AND claimed.attempt = $3
"""


class PostgresClaims:
    """`Claims` in PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database
        self.reads_meta = False
        self._fair = set[int]()  # queues of which the jobs that were claimed last had tenants

    async def claim(
        self,
        queue_id: int,
        worker_id: int,
        *,
        limit: int,
        in_hand: int = 0,
        hint: Hint | None = None,
        hints: Sequence[Hint] = (),
        late: timedelta = timedelta(0),
        without_kinds: Sequence[str] = (),
        without_pinned: bool = False,
        only_pinned: bool = False,
        standing: Standing | None = None,
    ) -> list[Claim]:
        stands = (None, None) if standing is None else (standing.era, standing.beat_at)
        says_turns = not only_pinned and queue_id in self._fair
        if only_pinned:  # not in the way of other claims, whose plans do without what this one needs
            records = await self._database.fetch(
                CLAIM_PINNED, queue_id, worker_id, limit, in_hand, list(without_kinds), *stands
            )
        elif hint is not None and not hints and not without_kinds and not without_pinned:
            records = await self._database.claims.fetch(
                WITH_TURNS[CLAIM] if says_turns else CLAIM,
                *(queue_id, worker_id, limit, *hint, in_hand, *stands),
            )
        else:
            looked_at = stretches(hint or START, hints)
            statement = CLAIM_WITHOUT_KINDS if without_kinds else CLAIM_STRETCHES
            statement = CLAIM_FITTING if without_pinned else statement
            records = await self._database.claims.fetch(
                WITH_TURNS[statement] if says_turns else statement,
                queue_id,
                worker_id,
                limit,
                [stretch.priority for stretch in looked_at],
                [stretch.pos for stretch in looked_at],
                in_hand,
                [stretch.until for stretch in looked_at],
                late // MICROSECOND,
                *stands,
                *([list(without_kinds)] if without_kinds or without_pinned else []),
            )
        claims = [
            Claim(
                job,
                worker_id,
                attempt,
                queue_id,
                kind,
                payload,
                codec,
                urgency,
                at,
                attempts,
                timeout,
                key,
                made,
                links,
            )
            for job, attempt, kind, payload, codec, urgency, at, attempts, timeout, key, made, links in records
        ]
        claims.sort(key=PLACE)  # RETURNING promises no order
        await self._read_more(claims, told={queue_id} if says_turns else frozenset())
        return claims

    async def claim_from(
        self,
        queues: Sequence[AskedQueue],
        worker_id: int,
        *,
        limit: int,
        standing: Standing | None = None,
    ) -> list[Claim]:
        if not queues:
            return []
        looked_at = [stretches(asked.hint or START, asked.hints) for asked in queues]
        ends = list(accumulate(map(len, looked_at)))
        all_stretches = list(chain.from_iterable(looked_at))
        fair = {asked.queue_id for asked in queues} & self._fair
        records = await self._database.claims.fetch(
            WITH_TURNS[CLAIM_FROM] if fair else CLAIM_FROM,
            [asked.queue_id for asked in queues],
            worker_id,
            [asked.limit for asked in queues],
            [end - len(its) + 1 for end, its in zip(ends, looked_at, strict=True)],
            ends,
            [stretch.priority for stretch in all_stretches],
            [stretch.pos for stretch in all_stretches],
            [stretch.until for stretch in all_stretches],
            [
                None if asked.hint is not None and not asked.hints else asked.late // MICROSECOND
                for asked in queues
            ],
            limit,
            *((None, None) if standing is None else (standing.era, standing.beat_at)),
            *([list(fair)] if fair else []),
        )
        claims = [
            Claim(job, worker_id, attempt, queue_id, *facts) for job, attempt, *facts, queue_id in records
        ]
        order = {asked.queue_id: place for place, asked in enumerate(queues)}
        claims.sort(key=lambda claim: (order[claim.queue_id], claim.priority, claim.pos))
        await self._read_more(claims, told=fair)
        return claims

    async def _read_more(self, claims: Sequence[Claim], *, told: Set[int]) -> None:
        """The claims have what else their jobs need. Of the queues in `told` the claim has said which turns have come."""
        links = {claim.links for claim in claims}  # few, of however many jobs
        if told:
            self._fair -= told & {claim.queue_id for claim in claims}
        if not links <= ALONE:
            if not links <= END_ALONE:
                await time_limits.read(self._database, claims)
                await reports.read(self._database.claims, claims)
                await node_inputs.read_small(self._database.claims, claims)
                await pins.read(self._database, claims)
            if any(has_tenant(bits) for bits in links):
                fair = {claim.queue_id for claim in claims if has_tenant(claim.links)}
                self._fair |= fair
                if fair - told:
                    untold = [claim for claim in claims if claim.queue_id in fair - told]
                    await tenants.came(self._database, untold)
        if self.reads_meta and claims:
            await meta.read(self._database, claims)

    async def front(
        self, queue_id: int, *, without_kinds: Sequence[str] = (), without_pinned_of: int | None = None
    ) -> Front:
        statement, arguments = FRONT, list[object]()
        if without_pinned_of is not None:
            statement, arguments = FRONT_FITTING, [list(without_kinds), without_pinned_of]
        elif without_kinds:
            statement, arguments = FRONT_WITHOUT_KINDS, [list(without_kinds)]
        async with self._database.transaction() as connection:
            await self._database.execute(PLANNED_AS_WALKS, connection=connection)
            records = await self._database.fetch(statement, queue_id, *arguments, connection=connection)
        return Front({priority: pos for priority, pos, _ in records[:-1]}, records[-1]["now"])

    async def payload(self, claim: Claim) -> bytes | None:
        # One at a time, and on a connection that no handler can take.
        records = await self._database.claims.fetch(PAYLOAD, claim.job_id, claim.worker_id, claim.attempt)
        claim.state = records[0]["state"] if records else claim.state
        if records and is_node(claim.links):
            await node_inputs.read(self._database.claims, [claim])
        return records[0]["payload"] if records else None

    async def answered(self) -> None:
        await self._database.outcomes.fetch("SELECT 1")  # they pass one after the other

    async def finish(self, ends: Sequence[End]) -> list[int]:
        if not ends:
            return []
        ends = sorted(ends, key=JOB)  # rows are locked in one order: batches that overlap do not deadlock
        ids = [end.claim.job_id for end in ends]
        worker_id = ends[0].claim.worker_id
        if _are_plain(ends, worker_id):
            attempts, results = [end.claim.attempt for end in ends], [end.result for end in ends]
            records = await self._database.outcomes.fetch(
                FINISH_PLAIN,
                worker_id,
                ids,
                None if set(attempts) == {1} else attempts,
                [end.duration for end in ends],
                results if any([result is not None for result in results]) else None,
            )
        else:
            if any([end.changes is not None for end in ends]):
                return await flow_growth.finish(self._database, ends)
            is_linked = not all(end.claim.links in END_ALONE for end in ends)
            statement, arguments = outcomes.finish(ends, is_linked=is_linked)
            records = await self._database.outcomes.fetch(statement, *arguments)
            if is_linked:
                await groups.admit(self._database, records[0]["again"])
        return _missing(ids, records[0][0])

    async def postpone(self, postponements: Sequence[Postponement]) -> list[int]:
        if not postponements:
            return []
        postponements = sorted(postponements, key=JOB)
        columns = list(zip(*map(row, postponements), strict=True))
        claims = [postponed.claim for postponed in postponements]
        payloads = [postponed.payload for postponed in postponements]
        statements = (POSTPONE, POSTPONE_KEYED, POSTPONE_LINKED)
        if any(postponed.wait is not None for postponed in postponements):
            statements = (POSTPONE_WAITS,) * 3
            columns.append(tuple(postponed.wait for postponed in postponements))
        elif any(payload is not None for payload in payloads):
            statements = (POSTPONE_ITEMS,) * 3
        else:
            payloads = []
        return await self._given_up(statements, claims, columns, payloads)

    async def hand_back(self, claims: Sequence[Claim]) -> list[int]:
        if not claims:
            return []
        claims = sorted(claims, key=ID)
        columns = list(
            zip(
                *(
                    (claim.job_id, claim.worker_id, claim.attempt, claim.queue_id, claim.priority, claim.pos)
                    for claim in claims
                ),
                strict=True,
            )
        )
        statements = (HAND_BACK, HAND_BACK_KEYED, HAND_BACK_LINKED)
        return await self._given_up(statements, claims, columns)

    async def _given_up(
        self,
        statements: tuple[str, str, str],
        claims: Sequence[Claim],
        columns: Sequence[Sequence[Any]],
        payloads: Sequence[bytes | None] = (),
    ) -> list[int]:
        """Run the statement by which these jobs wait again: the plain one, the one for jobs of which any has a key, or
        the one where any is linked, has another payload from now on or waits for a signal. Claims say what came of it.
        """
        plain, keyed, linked = statements
        is_linked = bool(payloads) or any(claim.links is not None for claim in claims)
        has_key = [claim.key is not None for claim in claims]
        if is_linked or any(has_key):
            more = [payloads] if payloads else []
            records = await self._database.outcomes.fetch(
                linked if is_linked else keyed, *columns, has_key, *more
            )
            for claim in claims if records[0][2] else ():
                claim.superseded = claim.job_id in records[0][2]
            if is_linked and records[0]["over"]:
                time_limits.fill_in(claims, records[0])
        else:
            records = await self._database.outcomes.fetch(plain, *columns)
        _fill_in(claims, records[0][1])
        if is_linked:
            await groups.admit(self._database, records[0]["again"])
            if records[0].get("for_jobs"):
                with suppress(ForgeError):  # they do wait, and the leader looks as well
                    await self._database.outcomes.fetch(LOOK_AGAIN, list(columns[0]))
        return _missing(columns[0], records[0][0])

    async def held(self, worker_id: int) -> list[Claim]:
        records = await self._database.fetch(HELD, worker_id)
        return [Claim(*record) for record in records]

    async def lost(self, *, epoch: LeaderEpoch, limit: int = 500) -> list[Claim]:
        records = await self._database.fetch(LOST, limit, epoch)
        return [Claim(*record) for record in records]


# Of an end that is written at the moment at which a job begins to wait for it, neither sees the other.
LOOK_AGAIN = """
SELECT count(*) FILTER (WHERE {schema}.end_wait(over.job_id, false)) FROM (
    SELECT waiting.job_id FROM {schema}.waiting JOIN {schema}.job ON job.id = waiting.job_id
    WHERE waiting.job_id = ANY ($1::bigint[]) AND EXISTS (
        SELECT FROM {schema}.finished WHERE finished.job_id BETWEEN waiting.for_job AND waiting.for_job)
    FOR NO KEY UPDATE OF job SKIP LOCKED) AS over
"""


def row(postponed: Postponement) -> tuple[Any, ...]:
    """Return what POSTPONE is told of one job."""
    claim = postponed.claim
    return (
        claim.job_id,
        claim.worker_id,
        claim.attempt,
        claim.queue_id,
        claim.priority,
        postponed.reason.value,
        postponed.delay.total_seconds(),
        postponed.run_at,
        postponed.error,
        postponed.attempts,
    )


def _are_plain(ends: Sequence[End], worker_id: int) -> bool:
    return all(
        [  # faster than a generator, and with nearly every batch all have to be looked at
            end.state is DONE
            and end.keep
            and end.error is None
            and (claim := end.claim).key is None
            and (claim.links is None or claim.links == FAIR)
            and claim.worker_id == worker_id
            for end in ends
        ]
    )


def _fill_in(claims: Sequence[Claim], cancelled: Sequence[int] | None) -> None:
    for claim in claims if cancelled else ():
        claim.cancel_requested = claim.job_id in cancelled  # type: ignore[operator]  # there are some


def _missing(ids: Sequence[int], written: Sequence[int] | None) -> list[int]:
    if written is not None and len(written) == len(ids):
        return []
    return sorted(set(ids).difference(written or ()))
