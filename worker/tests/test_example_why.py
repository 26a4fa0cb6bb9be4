"""The example of `why` says of each job what holds it up."""

import re
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "why.py"
SAID = """pack is blocked:
  Its group 'shelf' runs 1 at a time: job 1 is in progress for [^ ]+ m?s.
ask is scheduled:
  It waits for tokens of key 'ann' of rate limit 'model'; its next attempt waits until .* UTC, in [^ ]+ (h|min).
report is pending:
  The one slot of queue 'reports' is in use.
  It waits for a turn of tenant 'ann': 2 jobs of its queue are ahead of it, 1 of them of its tenant.
mail is pending:
  Queue 'mails' is paused until .* UTC, for another [^ ]+ h: the mail host moves.
9 jobs are done
"""


def test_the_example_of_why_names_what_each_job_waits_for() -> None:
    ran = subprocess.run(
        [sys.executable, str(EXAMPLE)], capture_output=True, text=True, timeout=100, check=True
    )

    assert re.fullmatch(SAID, ran.stdout), ran.stdout
