"""The example of docs/progress.md does what it says."""

import os
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "progress.py"


def test_the_example_of_progress_runs(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'queue.sqlite'}"

    ran = subprocess.run(
        [sys.executable, str(EXAMPLE)],
        env={**os.environ, "FORGE_DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )

    assert ran.stdout.splitlines() == [
        "attempt 1 imports ada",
        "attempt 1 imports bob",
        "attempt 2 imports cyd",
        "attempt 2 imports dan",
        "100%: 4 of 4 users",
        "imported: 4",
    ]
