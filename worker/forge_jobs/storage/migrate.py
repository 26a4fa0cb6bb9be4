"""The numbered migrations of this release, as each database's `schema` applies them.

A migration is a file `migrations/<database>/0001_name.sql`. They are applied in order,
each once, and never changed or undone: what was wrong is put right by the next one.

A step that only adds leaves the release before it working, so that processes of that release may
go on, and be started again, while a new one is rolled out. A step that does more begins with the
line "-- breaking": then every release that does not know it refuses the database.

A step of PostgreSQL that makes an index of a table which may be large begins with the line
"-- concurrently": its statements run one by one and outside of any transaction, so that nobody is
kept waiting. Each is safe to repeat, since a process may die in the middle: an index is made by
CREATE INDEX CONCURRENTLY IF NOT EXISTS.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from forge_jobs.errors import SchemaTooNew


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema; `text` is what its file says."""

    number: int
    name: str
    text: str

    @property
    def is_breaking(self) -> bool:
        """Whether a release that does not know this step must not touch the database."""
        return self.text.startswith("-- breaking")

    @property
    def is_concurrent(self) -> bool:
        """Whether its statements run outside of any transaction."""
        return self.text.startswith("-- concurrently")

    @property
    def statements(self) -> list[str]:
        """The statements of a concurrent step, in which no statement contains a semicolon."""
        lines = (line for line in self.text.splitlines() if not line.lstrip().startswith("--"))
        return [statement for part in "\n".join(lines).split(";") if (statement := part.strip())]


def migrations(database: str) -> tuple[Migration, ...]:
    """Return all migrations for `database` ("postgres" or "sqlite") in order."""
    folder = files("forge_jobs.storage") / "migrations" / database
    scripts = [file for file in folder.iterdir() if file.name.endswith(".sql")]
    return tuple(
        Migration(int(number), name, file.read_text(encoding="utf-8"))
        for file in sorted(scripts, key=lambda file: file.name)
        for number, _, name in [file.name.removesuffix(".sql").partition("_")]
    )


def missing(known: Sequence[Migration], found: int, required: int) -> list[Migration]:
    """Return those of `known` that a database at number `found` lacks.

    Raises SchemaTooNew when a breaking one, `required`, was applied to it that is not among `known`.
    """
    if required > known[-1].number:
        raise SchemaTooNew(found, known[-1].number)
    return [migration for migration in known if migration.number > found]
