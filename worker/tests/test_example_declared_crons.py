"""The example of docs/cron.md does what it says."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "declared_crons.py"


def test_the_example_of_declared_crons_runs() -> None:
    ran = subprocess.run(
        [sys.executable, str(EXAMPLE)], capture_output=True, text=True, timeout=100, check=True
    )

    lines = ran.stdout.splitlines()
    assert lines[:3] == ["clean_up: 0 3 * * *", "monthly: 0 8 1 * *", "report: 0 8 * * mon"]
    jobs = Counter(lines[3:])
    assert (jobs["clean up"], jobs["report 7 days"]) == (35, 5)
    assert jobs["report 31 days"] in (1, 2)
