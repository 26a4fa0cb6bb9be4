"""The example of rate limits by key in docs/handlers.md does what it says."""

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "limits.py"


def test_the_example_of_limits_runs() -> None:
    ran = subprocess.run(
        [sys.executable, str(EXAMPLE)], capture_output=True, text=True, timeout=100, check=True
    )

    told, spent, *lines = ran.stdout.splitlines()
    assert (told, spent) == ("dan has no tokens left for about 30 minutes", "dan has spent 0.5")
    questions = [f"ann asks question {number}" for number in range(1, 6)]
    assert sorted(lines) == sorted([*questions, "bob asks question 1", "a model is trained for cyd"])
    assert lines.index("bob asks question 1") < lines.index(questions[-1])
