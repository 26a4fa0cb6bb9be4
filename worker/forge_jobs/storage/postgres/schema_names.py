"""How SQL texts name the schema, and what a schema may be called."""

import re

from forge_jobs.errors import InvalidInput


def check_schema(schema: str) -> None:
    """Raise InvalidInput when `schema` cannot be the name of a PostgreSQL schema of ours."""
    size = len(schema.encode())
    if not 1 <= size <= 63 or "\0" in schema or "$" in schema or schema.startswith("pg_"):
        raise InvalidInput(
            f"The schema is {schema!r}, allowed is a name of 1 to 63 bytes without $ "
            "that does not begin with pg_."
        )


def quoted(identifier: str) -> str:
    """Return `identifier` as SQL text."""
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return `text` as a literal in SQL text."""
    return "'" + text.replace("'", "''") + "'"


class SchemaNames:
    """What `{schema}`, `{schema_text}` and `{channel}` stand for in SQL texts."""

    def __init__(self, schema: str) -> None:
        check_schema(schema)
        self._names = {
            "{schema}": quoted(schema),
            "{schema_text}": quoted(schema).replace("'", "''"),
            "{channel}": literal(schema),
        }
        self._texts: dict[str, str] = {}

    def filled_into(self, text: str) -> str:
        """Return `text` with the names filled in."""
        filled = self._texts.get(text)
        if filled is None:
            # All at once: a schema may be called {channel}.
            names = "|".join(map(re.escape, self._names))
            filled = self._texts[text] = re.sub(names, lambda match: self._names[match[0]], text)
        return filled
