"""The example of docs/steps.md does what it says."""

import os
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "steps.py"


def test_the_example_of_steps_runs(tmp_path: Path) -> None:
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
        "charges order 7",
        "reserves a courier for order 7",
        "mails: 500 cents received, parcel-7 is on its way",
        "mails: how was parcel-7?",
        "fulfilled: parcel-7",
        "1. charge, in attempt 1",
        "2. reserve, in attempt 2",
        "3. mail, in attempt 2",
        "4. a while, in attempt 2",
        "5. ask, in attempt 2",
    ]
