"""What telemetry told during a test."""

from typing import TypeVar

from forge_jobs.telemetry.events import Event

E = TypeVar("E", bound=Event)


class Events(list[Event]):
    """Every event, in order."""

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self if isinstance(event, kind)]
