"""What `forge-jobs stats --since` prints: what attempts came to, and how long jobs waited and ran."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from forge_jobs.cli.output import Report
from forge_jobs.cli.table import Rows
from forge_jobs.forge import Forge
from forge_jobs.model.statistics import MINUTE, KindStatistics, Times
from forge_jobs.rules.words import to_the_second

SHARES = (0.5, 0.95, 0.99)

COLUMNS = (
    *("at", "queue", "kind", "done", "failed", "dead", "others", "a minute"),
    *(f"{what} p{share * 100:.0f}" for what in ("wait", "run") for share in SHARES),
)

NAMED = ("done", "failed", "dead")


async def ended_since(
    forge: Forge, since: timedelta, every: timedelta | None, queue: str | None, kind: str | None
) -> Report:
    """Return what attempts came to within this time, by queue and kind."""
    found = await forge.statistics.list(since, every=every, queue=queue, kind=kind)
    now = await forge.storage.now()
    rows = [_row(one, _minutes(one.at, every, since, now), with_moment=every is not None) for one in found]
    columns = COLUMNS if every is not None else COLUMNS[1:]
    numbers = frozenset(COLUMNS) - {"at", "queue", "kind"}
    return Report(
        {
            "since_seconds": since.total_seconds(),
            "every_seconds": None if every is None else every.total_seconds(),
            "kinds": [_document(one) for one in found],
        },
        [Rows(columns, rows, "No attempt ended in this time.", numbers)],
    )


def _minutes(at: datetime, every: timedelta | None, since: timedelta, now: datetime) -> float:
    """Return how many minutes of the stretch from `at` on there are statistics of: the present one is not over."""
    begins = max(at, (now - since).replace(second=0, microsecond=0))
    ends = now.replace(second=0, microsecond=0)
    if every is not None:
        ends = min(ends, at + every)
    return max(1.0, (ends - begins) / MINUTE)


def _row(one: KindStatistics, minutes: float, *, with_moment: bool) -> Sequence[str]:
    all_ended = sum(one.outcomes.values())
    named = [one.ended(outcome) for outcome in NAMED]
    quantiles = [_shown(times.quantile(share)) for times in (one.waits, one.runs) for share in SHARES]
    return [
        *([to_the_second(one.at)] if with_moment else []),
        one.queue,
        one.kind,
        *(f"{count:,}" for count in (*named, all_ended - sum(named))),
        f"{all_ended / minutes:,.1f}",
        *quantiles,
    ]


def _shown(seconds: float | None) -> str:
    """Return a time as people read it, in two or three digits."""
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms" if seconds < 0.1 else f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds:,.0f} s"


def _document(one: KindStatistics) -> dict[str, Any]:
    return {
        "queue": one.queue,
        "kind": one.kind,
        "at": one.at.isoformat(),
        "outcomes": dict(one.outcomes),
        "wait": _times(one.waits),
        "run": _times(one.runs),
    }


def _times(times: Times) -> dict[str, float | int | None]:
    quantiles = {f"p{share * 100:.0f}_seconds": times.quantile(share) for share in SHARES}
    return {"count": times.count, "mean_seconds": times.mean, **quantiles}
