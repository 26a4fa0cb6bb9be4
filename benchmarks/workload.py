"""The work that every side is given: jobs that do nothing, each with a payload of 100 bytes."""

import time

QUEUE = "bench"
KIND = "nothing"
PAYLOAD = {"pad": "x" * 90}
ENCODED = b'{"pad":"' + b"x" * 90 + b'"}'  # the same, 100 bytes
CONCURRENCY = 50  # handlers at once in a worker of forge-jobs
WARM_UP = 1000  # jobs in the call that opens the connection before a timed one
BARE_BATCH = 200  # jobs in one statement of a bare loop


class Starts:
    """Counts the handlers that began, and knows when the first did, in seconds of time.monotonic()."""

    __slots__ = ("count", "first")

    def __init__(self) -> None:
        self.count = 0
        self.first = 0.0

    def one(self) -> None:
        """One more began."""
        if not self.count:
            self.first = time.monotonic()
        self.count += 1
