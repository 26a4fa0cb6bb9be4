"""Telemetry: passes events to subscribers. Without any, an event costs one call and an empty loop."""

from collections.abc import Callable

from forge_jobs.telemetry import events
from forge_jobs.telemetry.events.event import Event

Subscriber = Callable[[Event], None]


class Telemetry:
    """Passes events to its subscribers, in the order they came."""

    def __init__(self) -> None:
        self._subscribers: list[Subscriber] = []
        self.wants_starts = False  # whether anybody wants a JobStarted for each job

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """`subscriber` gets every event from now on; call the returned function to end that."""
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber)

    def emit(self, event: Event) -> None:
        """Every subscriber has got `event`. A subscriber must not block; when one raises, the others get SubscriberFailed."""
        for subscriber in self._subscribers:
            try:
                subscriber(event)
            except BaseException as error:  # neither a job nor a worker ends by it
                if type(event) is not events.SubscriberFailed:
                    name = getattr(subscriber, "__qualname__", type(subscriber).__qualname__)
                    self.emit(events.SubscriberFailed(str(name), type(event).__name__, error))
