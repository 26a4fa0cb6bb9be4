"""The example of docs/sync.md does what it says."""

import os
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "sign_up.py"


def test_the_example_of_a_web_application_runs(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, str(EXAMPLE)],
        env={**os.environ, "FORGE_DATABASE_URL": f"sqlite:///{tmp_path}/queue.sqlite"},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )

    assert ran.stdout.splitlines() == [
        "3 jobs wait",
        "['welcomed user 1', 'welcomed user 2', 'welcomed user 3']",
    ]
