"""What happened: events, and who hears of them.

`forge.telemetry.subscribe` gives a function every `Event`; `events` holds their classes, and `logs` turns them into lines.
"""

from forge_jobs.telemetry import events, logs
from forge_jobs.telemetry.events import Event
from forge_jobs.telemetry.log_format import JsonFormatter, TextFormatter
from forge_jobs.telemetry.telemetry import Telemetry

__all__ = ["Event", "JsonFormatter", "Telemetry", "TextFormatter", "events", "logs"]
