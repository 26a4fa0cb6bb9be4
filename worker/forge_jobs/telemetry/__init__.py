"""What happened: events, and who hears of them.

`forge.telemetry.subscribe` gives a function every `Event`; `events` holds their classes, and `logs` turns them into lines.
"""

from typing import TYPE_CHECKING

from forge_jobs.rooms import offering

if TYPE_CHECKING:
    from forge_jobs.telemetry import events, logs
    from forge_jobs.telemetry.events import Event
    from forge_jobs.telemetry.log_format import JsonFormatter, TextFormatter
    from forge_jobs.telemetry.telemetry import Telemetry
else:
    __getattr__ = offering(__name__, "telemetry", "events", "log_format", "logs")

__all__ = ["Event", "JsonFormatter", "Telemetry", "TextFormatter", "events", "logs"]
