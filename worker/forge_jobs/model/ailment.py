"""What keeps a worker from its work, as it knows it itself: /readyz says it, and each heartbeat tells the database."""

from dataclasses import dataclass

LONGEST = 500
"""Characters of what the database said that are repeated."""


@dataclass(frozen=True, slots=True)
class Ailment:
    """A sentence that anybody may read, and what the database said, which may name hosts and users."""

    sentence: str
    said: str | None = None

    def __str__(self) -> str:
        """Both, for those who may read the database."""
        if self.said is None:
            return self.sentence
        # Whatever was said, the heartbeat that tells it must pass: any database takes ASCII.
        said = self.said[:LONGEST].replace("\0", "").encode("ascii", "backslashreplace").decode()
        return f"{self.sentence.rstrip('.')}: {said}"
