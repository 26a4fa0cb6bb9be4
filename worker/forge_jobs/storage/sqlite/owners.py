"""Owners of configuration in SQLite, from the column managed_by of three tables."""

from forge_jobs.errors import UnknownOwner
from forge_jobs.model.intervention import Deed
from forge_jobs.model.owner import Owner
from forge_jobs.storage.closed_queues import SHOWN_NAME
from forge_jobs.storage.sqlite import interventions
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.revision import configured
from forge_jobs.storage.sqlite.transaction import Transaction

TABLES = (("queue", SHOWN_NAME), ("rate_limit", "scope"), ("cron", "name"))

NAMES = " UNION ".join(f"SELECT managed_by FROM {table} WHERE managed_by IS NOT NULL" for table, _ in TABLES)


class SqliteOwners:
    """`Owners` in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def all(self) -> list[Owner]:
        return await self._database.read(_all)

    async def dismiss(self, name: str, *, by: str | None = None) -> Owner:
        def dismiss(transaction: Transaction) -> Owner:
            owner = _owner(transaction, name)
            if owner == Owner(name):
                raise UnknownOwner(name, (known.name for known in _all(transaction)))
            for table, _ in TABLES:
                transaction.execute(f"UPDATE {table} SET managed_by = NULL WHERE managed_by = ?", (name,))
            interventions.note_of(transaction, [f"owner {name}"], Deed.DISMISSED, by)
            configured(transaction)
            return owner

        return await self._database.write(dismiss)


def _all(transaction: Transaction) -> list[Owner]:
    return [_owner(transaction, name) for (name,) in transaction.rows(f"{NAMES} ORDER BY managed_by")]


def _owner(transaction: Transaction, name: str) -> Owner:
    held = (
        transaction.rows(f"SELECT {key} FROM {table} WHERE managed_by = ? ORDER BY {key}", (name,))
        for table, key in TABLES
    )
    return Owner(name, *(tuple(row[0] for row in rows) for rows in held))
