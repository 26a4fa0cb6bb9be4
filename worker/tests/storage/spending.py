"""What is true of the tokens of keys, however many ask for them at once."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime

from forge_jobs.model.permit import Permit


def check_spending(permits: Iterable[Permit], *, capacity: float, refill: float, since: datetime) -> None:
    """At no moment more tokens of a key were spent than it had and has got back by then, and none of them is lost.

    All that was spent of keys that were full at `since` is in `permits`; `refill` is tokens a second.
    """
    by_key: defaultdict[str, list[Permit]] = defaultdict(list)
    for permit in permits:
        by_key[permit.key].append(permit)
    for key, its in by_key.items():
        spent = 0.0
        for permit in sorted(its, key=lambda permit: permit.at):
            spent += permit.cost
            got = refill * (permit.at - since).total_seconds()
            assert spent <= capacity + got + 1e-3, key
        assert spent >= got, f"tokens of {key} are lost"
