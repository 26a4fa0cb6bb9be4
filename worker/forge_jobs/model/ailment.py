"""What keeps a worker from its work, as it knows itself: /readyz says so, and each heartbeat tells the database."""

from dataclasses import dataclass

LONGEST = 500
"""How many characters of the database's error are kept."""


@dataclass(frozen=True, slots=True)
class Ailment:
    """A sentence that anybody may read, and the database's error, which may name hosts and users."""

    sentence: str
    error: str | None = None

    def __str__(self) -> str:
        """Return both, for people who may read the database."""
        if self.error is None:
            return self.sentence
        # The heartbeat that carries it must pass whatever the error says: any database takes ASCII.
        error = self.error[:LONGEST].replace("\0", "").encode("ascii", "backslashreplace").decode()
        return f"{self.sentence.rstrip('.')}: {error}"
