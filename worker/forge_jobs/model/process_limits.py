"""How many processes of their own the handlers of a worker have, and how long each is kept."""

import msgspec


class ProcessLimits(msgspec.Struct, frozen=True):
    """None: any number."""

    count: int | None = None  # at once, in one worker
    jobs: int | None = None  # after so many a process is replaced by a new one
    memory: int | None = None  # bytes; a process that holds more when its job has ended is replaced
