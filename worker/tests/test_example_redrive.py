"""The example of docs/operations.md does what it says."""

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "redrive.py"


def test_the_example_of_operations_runs() -> None:
    ran = subprocess.run(
        [sys.executable, str(EXAMPLE)], capture_output=True, text=True, timeout=100, check=True
    )

    assert ran.stdout.splitlines() == [
        "dead: 3",
        "examples asks for 2 jobs to be retried",
        "operation 1 is done: 2 jobs",
        "job 4 runs job 1 again",
        "done: 3",
    ]
