"""For users' tests: a database of their own, a clock to set, and jobs that run when told.

async with use_test_database(forge) as clock:
    await welcome.enqueue(user=1)
    await run_due_jobs(forge)
    clock.advance(days=3)          # the reminder that welcome enqueued is due now
    [job] = await run_due_jobs(forge)
"""

from typing import TYPE_CHECKING

from forge_jobs.rooms import offering

if TYPE_CHECKING:
    from forge_jobs.testing.assertions import assert_enqueued, refute_enqueued
    from forge_jobs.testing.clock import Clock
    from forge_jobs.testing.database import use_test_database
    from forge_jobs.testing.due import perform, run_due_jobs
else:
    __getattr__ = offering(__name__, "clock", "assertions", "due", "database")

__all__ = ["Clock", "assert_enqueued", "perform", "refute_enqueued", "run_due_jobs", "use_test_database"]
