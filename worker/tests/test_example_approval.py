"""The example of docs/signals.md does what it says."""

import os
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "approval.py"


def test_the_example_of_signals_runs(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'queue.sqlite'}"

    ran = subprocess.run(
        [sys.executable, str(EXAMPLE)],
        env={**os.environ, "FORGE_DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )

    said = ran.stdout.splitlines()
    assert said[:3] == [
        "asks whether order 7 may be shipped",
        "It waits for the signal 'approved'",
        "woken",
    ]
    assert said[3] in ("duplicate", "ended") or said[4] in ("duplicate", "ended")
    assert [line for line in said[3:] if line not in ("duplicate", "ended")] == [
        "ships order 7",
        "order 7, approved by ada",
        "asks whether order 8 may be shipped",
        "order 8: nobody has answered",
    ]
