"""The example of docs/fairness.md does what it says."""

import re
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "tenants.py"


def test_the_example_of_tenants_runs() -> None:
    ran = subprocess.run(
        [sys.executable, str(EXAMPLE)], capture_output=True, text=True, timeout=100, check=True
    )

    tenants, reports = ran.stdout.splitlines()[:3], ran.stdout.splitlines()[3:]
    for line, (about, jobs) in zip(
        tenants, (("ada: weight 1", 100), ("cyd: weight 2", 6), ("bob: weight 1", 3)), strict=True
    ):
        said = re.fullmatch(rf"{about}, about (\d+) jobs wait", line)
        assert said is not None and abs(int(said[1]) - jobs) <= 1
    assert len(reports) == 109
    for customer, last in (("ada", 100), ("bob", 3), ("cyd", 6)):
        mine = [line for line in reports if line.startswith(customer)]
        assert mine == [f"{customer} {number}" for number in range(1, last + 1)]
    assert {"bob 3", "cyd 6"} <= set(reports[:15])
