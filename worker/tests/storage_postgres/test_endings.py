"""What a job passes through when it leaves a state is written in one file."""

import re
from pathlib import Path

from forge_jobs.storage import postgres

ENDING = re.compile(
    r"DELETE FROM \{+schema\}+\.(?:job|job_key|failure)\b|INSERT INTO \{+schema\}+\.failure\b"
)


def test_no_statement_forgets_unkeys_or_fails_a_job_in_words_of_its_own() -> None:
    [folder] = postgres.__path__

    found = {path.name for path in Path(folder).glob("*.py") if ENDING.search(path.read_text())}

    assert found == {"endings.py", "audit.py"}  # the latter repairs what no statement of ours leaves behind
