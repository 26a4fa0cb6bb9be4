"""The example of docs/keys.md does what it says."""

import os
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "keys.py"


def test_the_example_of_keys_runs(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'queue.sqlite'}"

    ran = subprocess.run(
        [sys.executable, str(EXAMPLE)],
        env={**os.environ, "FORGE_DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )

    assert sorted(ran.stdout.splitlines()) == [
        "a report of 10 pages for ada",
        "cart 7 has 3 items",
        "cart 8: deleted",
        "duplicate: True, and other pages were asked for: True",
        "replaced: True",
        "synchronised 3 times",
        "version 3 of home is indexed",
    ]
