"""Where the buckets of keys of rate limits stand, in SQLite."""

from dataclasses import dataclass

from forge_jobs.storage import refusals
from forge_jobs.storage.sqlite.limits import FLOWED, get
from forge_jobs.storage.sqlite.transaction import Transaction

SECOND = 1_000_000  # microseconds
DAY = 86_400 * SECOND
NEARLY = 2  # microseconds: sums of fractions are not exact, and what is less than this away is there
LONGEST = 1000 * 365 * DAY


@dataclass(frozen=True, slots=True)
class Bucket:
    """A rate limit at a moment, as its keys see it: all numbers are in tokens, that moment in microseconds."""

    now: int
    capacity: float
    refill: float
    flowed: float  # towards each key, from the beginning until now
    emptied: float  # no bucket is full before so many have flowed
    emptied_at: int | None
    void_to: float  # permits up to this number are void

    @property
    def full_from(self) -> float:
        """When a bucket of which nothing is spent is full."""
        return max(self.flowed, self.emptied)

    @property
    def nearly(self) -> float:
        """How many tokens are none: sums of fractions are not exact."""
        return self.refill * NEARLY / SECOND

    def is_unused(self, full_at: float, reset_at: int | None) -> bool:
        """Whether the row of a key says nothing. One that was made full stays for a day, in which permits of before may be settled, and
        while it would be empty without that.
        """
        is_past = reset_at is None or (reset_at <= self.now - DAY and self.emptied <= self.flowed)
        return full_at <= self.flowed and is_past

    def time(self, tokens: float) -> int:
        """Return how many microseconds it takes until so many tokens have flowed."""
        wait = tokens / self.refill * SECOND if self.refill else LONGEST
        return 0 if wait < NEARLY else round(min(wait, LONGEST))

    def wait(self, full_at: float) -> int:
        """Return in how many microseconds the tokens for which this is the number are in the bucket."""
        return self.time(full_at - self.capacity - self.flowed)


def bucket(transaction: Transaction, scope: str, key: str | None = None) -> Bucket:
    """Return the rate limit as this key sees it (None: one that nobody has made full). Raises UnknownScope."""
    limit = get(transaction, scope)
    [(flowed, emptied, emptied_at, void_to)] = transaction.rows(
        f"""
        SELECT {FLOWED}, CASE WHEN rate_key.reset_at > emptied_at THEN 0.0 ELSE emptied END, emptied_at, void_to
        FROM rate_limit LEFT JOIN rate_key ON rate_key.scope = rate_limit.scope AND rate_key.key = :key
        WHERE rate_limit.scope = :scope
        """,
        {"scope": scope, "key": key, "now": transaction.now},
    )
    return Bucket(transaction.now, limit.capacity, limit.refill, flowed, emptied, emptied_at, void_to)


def refilled(transaction: Transaction, scope: str, key: str, cost: float) -> Bucket:
    """Return the rate limit as this key sees it. Raises UnknownScope, and InvalidInput when it gives no permit for `cost` tokens."""
    flow = bucket(transaction, scope, key)
    if not flow.refill or cost > flow.capacity:
        raise refusals.no_permit(scope, cost, flow.capacity, flow.refill)
    return flow


def full_at_of(transaction: Transaction, flow: Bucket, scope: str, key: str) -> float:
    """Return when the bucket of the key is full, if nothing more is spent."""
    row = transaction.row("SELECT full_at FROM rate_key WHERE scope = ? AND key = ?", (scope, key))
    return flow.full_from if row is None else max(row[0], flow.full_from)


def free(transaction: Transaction, flow: Bucket, scope: str, key: str) -> float:
    """Return how many tokens of the key were given back and are there."""
    row = transaction.row("SELECT free_to FROM rate_key WHERE scope = ? AND key = ?", (scope, key))
    return 0.0 if row is None else max(0.0, float(row[0]) - flow.full_from)


def write(transaction: Transaction, scope: str, key: str, full_at: float) -> None:
    """The bucket of the key is full when so many tokens have flowed, if nothing more is spent."""
    transaction.execute(
        "INSERT INTO rate_key (scope, key, full_at) VALUES (?, ?, ?) "
        "ON CONFLICT (scope, key) DO UPDATE SET full_at = excluded.full_at",
        (scope, key, full_at),
    )
