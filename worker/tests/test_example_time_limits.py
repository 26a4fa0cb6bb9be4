"""The example of docs/time-limits.md does what it says."""

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "time_limits.py"


def test_the_example_of_time_limits_runs() -> None:
    ran = subprocess.run(
        [sys.executable, str(EXAMPLE)], capture_output=True, text=True, timeout=100, check=True
    )

    *begun, late, code, report = ran.stdout.splitlines()
    assert sorted(begun) == ["code for 2", "report of today"]
    assert late.startswith("send_code is expired: expired: it was not begun by ")
    assert code == "send_code is done"
    assert report.startswith("report is dead: overdue: it had not ended by ")
