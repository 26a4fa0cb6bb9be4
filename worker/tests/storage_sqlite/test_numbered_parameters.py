"""Parameters by their numbers, where Python takes these for names."""

import sqlite3
from contextlib import closing

import pytest

from forge_jobs.storage.sqlite import transaction
from forge_jobs.storage.sqlite.transaction import Transaction


@pytest.mark.parametrize("numbers_are_names", [False, True])
def test_parameters_have_numbers_also_where_python_wants_names_for_them(
    monkeypatch: pytest.MonkeyPatch, numbers_are_names: bool
):
    if numbers_are_names:
        monkeypatch.setattr(transaction, "NUMBERS_ARE_NAMES", True)
    with closing(sqlite3.connect(":memory:")) as connection:
        statements = Transaction(connection, 0, 0)
        statements.execute("CREATE TABLE pair (a, b)")

        statements.execute_many("INSERT INTO pair VALUES (?2, ?1)", [(1, 2), (3, 4)])

        assert statements.rows("SELECT a, b FROM pair WHERE b = ?1 OR a = ?2 AND ?1 IS NOT NULL", (1, 4)) == [
            (2, 1),
            (4, 3),
        ]
        assert statements.rows("SELECT a FROM pair WHERE b = ?", (3,)) == [(4,)]
        [record] = statements.records("SELECT a FROM pair WHERE b = ?1 AND a > ?1", (1,))
        assert record["a"] == 2
