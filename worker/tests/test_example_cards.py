"""The example of docs/codecs.md does what it says."""

import os
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "cards.py"


def test_the_example_of_codecs_runs(tmp_path: Path) -> None:
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
        "order 7 is paid with 4111 1111 1111 1111",
        "key 2026-11",
        "{'order': 7, 'card': '(redacted)'}",
        "ValueError: the bank does not know (redacted)",
    ]
    assert "4111" not in ran.stderr
