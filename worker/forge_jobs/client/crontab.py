"""Crontab files: a cron a line, as graphile-worker's have them.

CRON_TZ=Europe/Berlin
# minute hour day month weekday  kind  ?options  {arguments}
0 3 * * *      clean_up   ?fill=2d&max=3
*/5 * * * *    check      ?id=check-shop&priority=-5  {"shop": 1}
"""

import json
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from forge_jobs.errors import ForgeError, InvalidInput
from forge_jobs.handlers.cron_options import checked_cron
from forge_jobs.model.cron import CronConfig
from forge_jobs.model.kind import Kind
from forge_jobs.rules.duration import parse_duration

if TYPE_CHECKING:
    from forge_jobs.handlers.handler import Handler

FIELDS = 5
LINE = re.compile(
    rf"(?P<expression>@\w+|\S+(?:\s+\S+){{{FIELDS - 1}}})\s+(?P<kind>[^\s?{{]\S*)"
    r"(?:\s+\?(?P<options>\S*))?(?:\s+(?P<payload>\{.*\}))?"
)
SHAPE = "five fields or @daily and kin, a kind, and if need be ?name=value&... and a JSON object"
ZONE = re.compile(r"CRON_TZ\s*=\s*(?P<zone>\S+)")
WHOLE = re.compile(r"-?\d{1,10}")
WORDS = {"true": True, "false": False}


def parse(
    text: str, handlers: "Mapping[str, Handler[Any, Any]]", published: Mapping[str, Kind]
) -> list[CronConfig]:
    """Return the crons of a file, in its order, with what those of `handlers` say of their kinds' jobs, or else have to say by what
    is `published` of these; the name of one without `id` is its kind.

    A line `CRON_TZ=Europe/Berlin` holds for those below it. Options are `id`, `timezone`, `fill` (how old a missed
    fire may be that is made up for), and those of a job and of a cron that a word can say; `max`, `job_key` and
    `job_key_mode` are graphile-worker's words for `max_attempts`, `key` and `key_mode`. Raises
    InvalidInput with the number of the first line that is wrong.
    """
    crons: dict[str, tuple[int, CronConfig]] = {}
    zone = "UTC"
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if said := ZONE.fullmatch(line):
            zone = said["zone"]
            continue
        try:
            cron = _cron(line, zone, handlers, published)
        except ForgeError as error:
            raise InvalidInput(f"Line {number}: {error}") from None
        if cron.name in crons:
            raise InvalidInput(
                f"Line {number}: cron {cron.name!r} is in line {crons[cron.name][0]} already, allowed is once; "
                "?id=... gives a line a name of its own."
            )
        crons[cron.name] = number, cron
    return [cron for _, cron in crons.values()]


def _cron(
    line: str, zone: str, handlers: "Mapping[str, Handler[Any, Any]]", published: Mapping[str, Kind]
) -> CronConfig:
    found = LINE.fullmatch(line)
    if found is None:
        raise InvalidInput(f"It is {line!r}, allowed is {SHAPE}.")
    options = _options(found["options"] or "")
    name = options.pop("id", found["kind"])
    return checked_cron(
        name,
        " ".join(found["expression"].split()),
        found["kind"],
        {"timezone": zone, "payload": _payload(found["payload"]), **options},  # type: ignore[typeddict-item]
        handlers.get(found["kind"]),
        published.get(found["kind"]),
    )


def _payload(text: str | None) -> Mapping[str, Any]:
    if text is None:
        return {}
    try:
        payload: Mapping[str, Any] = json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"Its arguments are {text}, allowed is a JSON object: {error}.") from None
    return payload


def _options(text: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for part in filter(None, text.split("&")):
        name, _, value = part.partition("=")
        if name not in OPTIONS:
            raise InvalidInput(
                f"There is no option {name!r}, allowed is one of {', '.join(sorted(OPTIONS))}."
            )
        options |= OPTIONS[name](name, unquote(value))
    if "missed" in options and "missed_within" in options:
        raise InvalidInput("fill and missed are both given, allowed is one of them.")
    if "missed_within" in options:
        options["missed"] = "all"
    return options


def _text(option: str) -> Callable[[str, str], Mapping[str, Any]]:
    return lambda _, value: {option: value}


def _number(option: str) -> Callable[[str, str], Mapping[str, Any]]:
    def read(name: str, value: str) -> Mapping[str, Any]:
        if not WHOLE.fullmatch(value):
            raise InvalidInput(f"{name} is {value!r}, allowed is a whole number.")
        return {option: int(value)}

    return read


def _duration(option: str) -> Callable[[str, str], Mapping[str, Any]]:
    def read(name: str, value: str) -> Mapping[str, timedelta]:
        return {option: parse_duration(value, name)}

    return read


def _yes_or_no(option: str) -> Callable[[str, str], Mapping[str, Any]]:
    def read(name: str, value: str) -> Mapping[str, bool]:
        if value not in WORDS:
            raise InvalidInput(f"{name} is {value!r}, allowed is true or false.")
        return {option: WORDS[value]}

    return read


def _key_mode(name: str, value: str) -> Mapping[str, str]:
    return {"key_mode": "dedupe" if value == "unsafe_dedupe" else value}


OPTIONS: Mapping[str, Callable[[str, str], Mapping[str, Any]]] = {
    "id": _text("id"),
    "timezone": _text("timezone"),
    "fill": _duration("missed_within"),
    "missed": _text("missed"),
    "max": _number("max_attempts"),
    "max_attempts": _number("max_attempts"),
    "queue": _text("queue"),
    "priority": _number("priority"),
    "timeout": _duration("timeout"),
    "start_by": _duration("start_by"),
    "deadline": _duration("deadline"),
    "key": lambda _, value: {"key": value or None},
    "job_key": lambda _, value: {"key": value or None},
    "key_mode": _key_mode,
    "job_key_mode": _key_mode,
    "group": lambda _, value: {"group": value or ()},
    "tenant": lambda _, value: {"tenant": value or None},
    "overlap": _yes_or_no("overlap"),
    "tags": lambda _, value: {"tags": value.split(",")},
}
