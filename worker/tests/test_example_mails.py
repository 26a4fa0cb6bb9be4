"""The example of docs/batches.md does what it says."""

import os
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "mails.py"


def test_the_example_of_mails_runs() -> None:
    ran = subprocess.run(
        [sys.executable, str(EXAMPLE)],
        env={**os.environ, "FORGE_DATABASE_URL": "sqlite://:memory:"},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )

    assert ran.stdout.splitlines() == [
        "sent to ann@example.com",
        "sent to bob@example.com",
        "sent to cyd@example.com",
        "Job 2 is dead: 1 of 2 items failed: item 1: no address.",
        "calls: [['ann@example.com', 'bob@example.com', 'cyd@example.com'], ['bob@example.com'], "
        "['dan@example.com', 'nobody']]",
    ]
