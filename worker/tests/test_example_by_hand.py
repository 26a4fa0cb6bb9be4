"""The example of docs/by-hand.md does what it says."""

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "by_hand.py"


def test_the_example_of_jobs_by_hand_runs() -> None:
    ran = subprocess.run(
        [sys.executable, str(EXAMPLE)], capture_output=True, text=True, timeout=100, check=True
    )

    assert ran.stdout.splitlines() == [
        "order 1 was paid in cash",
        "Job 2 is dead: the customer withdrew it.",
        "job 3 is scheduled, with priority -5",
        "order 3 was charged",
    ]
