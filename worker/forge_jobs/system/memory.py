"""How much memory this process has."""

import sys
from contextlib import suppress
from pathlib import Path

STATM = Path("/proc/self/statm")  # in pages: the second number is what is resident


def resident() -> int:
    """Return how many bytes of this process are in memory now; where the system does not say it, the most that were."""
    with suppress(OSError, ValueError, IndexError):
        import resource  # which only POSIX systems have

        return int(STATM.read_text().split()[1]) * resource.getpagesize()
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
