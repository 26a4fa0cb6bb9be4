"""What is counted of the attempts in a process: how many exactly, and how long enough of them took."""

from forge_jobs.model.job import Claim
from forge_jobs.model.run import Outcome, Run
from forge_jobs.telemetry.events import JobsEnded
from forge_jobs.telemetry.job_series import EACH, MANY, JobSeries


def runs(count: int, kind: str = "send", outcome: Outcome = Outcome.DONE, wait: float = 0.02) -> list[Run]:
    claim = Claim(1, 1, 1, 1, kind, b"", "json", 0, 0, 5, None, None, 0.0)
    return [Run(claim, "mail", outcome, wait, 0.2)] * count


def timed(counts: dict[str, int], what: str) -> int:
    return sum(count for name, count in counts.items() if name.startswith(f"{what}:"))


def test_each_job_of_a_small_batch_is_timed() -> None:
    series = JobSeries()
    series(JobsEnded(runs(MANY - 1)))

    counts = series.take()["mail", "send"]

    assert counts == {"done": 63, "wait:4": 63, "wait_us": 1_260_000, "run:7": 63, "run_us": 12_600_000}


def test_of_a_large_batch_all_are_counted_and_each_eighth_is_timed() -> None:
    series = JobSeries()
    batch = [
        *runs(400),
        *runs(80, "bill"),
        *runs(3, outcome=Outcome.FAILED),
        *runs(2, outcome=Outcome.HANDED_BACK),
    ]
    for _ in range(EACH):
        series(JobsEnded(batch))

    taken = series.take()

    send, bill = taken["mail", "send"], taken["mail", "bill"]
    assert (send["done"], send["failed"], send["handed_back"], bill["done"]) == (3200, 24, 16, 640)
    assert timed(send, "wait") == timed(send, "run") == 3224  # in turn, all of them
    assert timed(bill, "run") == 640


def test_what_was_taken_is_not_taken_again() -> None:
    series = JobSeries()
    series(JobsEnded(runs(2)))
    assert series.take()["mail", "send"]["done"] == 2
    assert series.take() == {}
    series(JobsEnded(runs(3, outcome=Outcome.DEAD)))

    assert series.take() == {
        ("mail", "send"): {"dead": 3, "wait:4": 3, "wait_us": 60_000, "run:7": 3, "run_us": 600_000}
    }
