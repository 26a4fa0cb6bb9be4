"""What all events are."""


class Event:
    """The root of all events."""

    __slots__ = ()
