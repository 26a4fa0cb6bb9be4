"""Processes that are forked, as gunicorn does it, have connections of their own, and leave those of their parent alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.storage.databases import Database

PROGRAM = Path(__file__).with_name("program.py")

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


def said(name: str, database: Database) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", str(PROGRAM), name, database.url],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_children_and_their_parent_enqueue_beside_each_other(database: Database) -> None:
    assert said("fork", database) == ["[0, 0, 0]", "51"]


# SQLite has locks of its own, which a fork in the middle leaves locked in the child.
def test_a_child_that_is_forked_in_the_middle_of_a_call_is_not_held_up(postgres: Database) -> None:
    assert said("fork_in_the_middle", postgres) == ["[0, 0, 0, 0, 0, 0]", "72"]
