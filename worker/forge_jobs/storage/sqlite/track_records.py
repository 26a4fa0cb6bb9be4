"""Track records in SQLite: what the attempts of workers came to, kept with their version when they go."""

import msgspec

from forge_jobs.model.track_record import TrackRecord, bucket, encoded, summed
from forge_jobs.storage.sqlite.transaction import Transaction

Written = dict[str, int]


def keep(
    transaction: Transaction, worker_id: int, record: TrackRecord | None = None, *, silent: bool = False
) -> None:
    """The track record of the worker, which is about to go, is added to its version's; what it still holds counts as lost."""
    worker = transaction.record(
        "SELECT pool, version_id, record FROM worker WHERE id = ? AND pool IS NOT NULL", (worker_id,)
    )
    if worker is None:
        return
    pool, version_id = worker["pool"], worker["version_id"]
    held = transaction.value("SELECT count(*) FROM claimed WHERE worker_id = ?", (worker_id,))
    before = transaction.value(
        "SELECT record FROM worker_version WHERE pool = ? AND id = ?", (pool, version_id)
    )
    if before is None:
        return
    own = _decoded(worker["record"]) if record is None else record.written()
    gone = TrackRecord(lost=held, workers_lost=int(silent)).written()
    transaction.execute(
        "UPDATE worker_version SET record = ? WHERE pool = ? AND id = ?",
        (encoded(summed([_decoded(before), own, gone])), pool, version_id),
    )


def totals(transaction: Transaction, pool: str | None) -> dict[tuple[str, str], Written]:
    """Return what the attempts of each version (of one pool) have come to by now, by pool and version."""
    records: dict[tuple[str, str], list[Written]] = {}
    for row in transaction.records(
        """
        SELECT pool, id AS version_id, record FROM worker_version WHERE ?1 IS NULL OR pool = ?1
        UNION ALL SELECT pool, version_id, record FROM worker WHERE pool IS NOT NULL AND (?1 IS NULL OR pool = ?1)
        """,
        (pool,),
    ):
        records.setdefault((row["pool"], row["version_id"]), []).append(_decoded(row["record"]))
    return {version: summed(written) for version, written in records.items()}


def ages(transaction: Transaction, pool: str | None) -> dict[tuple[str, str], dict[int, int]]:
    """Return how many jobs the workers of each version hold, by the bucket of the time since they were claimed."""
    held: dict[tuple[str, str], dict[int, int]] = {}
    for row in transaction.records(
        """
        SELECT label.pool, label.version_id, claimed.claimed_at
        FROM claimed JOIN worker_label AS label ON label.worker_id = claimed.worker_id  -- which outlives its worker
        WHERE label.pool IS NOT NULL AND (?1 IS NULL OR label.pool = ?1)
        """,
        (pool,),
    ):
        counts = held.setdefault((row["pool"], row["version_id"]), {})
        number = bucket((transaction.now - row["claimed_at"]) / 1_000_000)
        counts[number] = counts.get(number, 0) + 1
    return held


def _decoded(text: str) -> Written:
    return msgspec.json.decode(text, type=dict[str, int])
