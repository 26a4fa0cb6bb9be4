"""How a side and the measurement that started it speak while it runs."""

import asyncio
import json
import resource
import sys
import time
from dataclasses import dataclass
from typing import Any, Self


def say(**facts: Any) -> None:
    """The measurement has these facts."""
    print(json.dumps(facts), flush=True)


async def until_told() -> None:
    """Return when the measurement says that it is enough."""
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


@dataclass(frozen=True, slots=True)
class Usage:
    """A moment of this process: the time of day, and the processor time of all its threads, in seconds."""

    at: float
    cpu: float

    @classmethod
    def now(cls) -> Self:
        """Return this moment."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        return cls(time.time(), used.ru_utime + used.ru_stime)

    def until(self, end: "Usage") -> dict[str, float]:
        """Return the stretch from here to `end` as a side reports it."""
        return {"began": self.at, "ended": end.at, "cpu": end.cpu - self.cpu}
