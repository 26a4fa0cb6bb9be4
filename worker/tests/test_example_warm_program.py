"""The example of a program that stays does what it says."""

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "warm_program.py"


def test_the_example_of_a_program_that_stays_runs() -> None:
    ran = subprocess.run(
        [sys.executable, str(EXAMPLE)], capture_output=True, text=True, timeout=100, check=True
    )

    assert ran.stdout.splitlines() == ["[4, 7]", "processes: 1", "there is no text"]
