"""The names of options: which one was meant by a name that no option has, as by one that it has in another queue."""

from collections.abc import Iterable, Mapping

from forge_jobs.rules import names

ELSEWHERE: Mapping[str, str] = {
    "attempts": "max_attempts",
    "max_retries": "max_attempts",
    "max_tries": "max_attempts",
    "retries": "max_attempts",
    "job_timeout": "timeout",
    "soft_time_limit": "timeout",
    "time_limit": "timeout",
    "countdown": "delay",
    "schedule_in": "delay",
    "defer_by": "delay",
    "defer_until": "run_at",
    "eta": "run_at",
    "schedule_at": "run_at",
    "scheduled": "run_at",
    "expires": "start_by",
    "actor_name": "kind",
    "name": "kind",
    "task_name": "kind",
    "job_id": "key",
    "queueing_lock": "key",
    "task_id": "key",
    "lock": "group",
    "queue_name": "queue",
    "rate_limit": "limits",
    "description": "title",
    "crontab": "cron",
    "run_every": "cron",
}
"""What options are called by other queues, and the option here."""

NOTES: Mapping[str, str] = {
    "max_attempts": ", which counts the first attempt too: 3 retries are max_attempts=4",
    "delay": ", in seconds or as a timedelta",
    "run_at": ", an aware datetime",
    "start_by": ", by when a job has to be begun",
    "limits": ", a KeyLimit or several",
    "cron": ", an expression like '0 3 * * *', or a Cron",
}


def unknown_option(name: str, allowed: Iterable[str], elsewhere: Mapping[str, str]) -> str:
    """Return the sentence for an option that is not among the `allowed`, with the one that was meant, if that can be told.

    `elsewhere` has the options that are said at another place, and how.
    """
    meant = name if name in elsewhere else ELSEWHERE.get(name)
    if meant is None or meant not in {*allowed, *elsewhere}:
        meant = names.nearest(name, {*allowed, *elsewhere})
    if meant is None:
        return f"There is no option {name!r}; options: {', '.join(sorted(allowed))}."
    if meant in elsewhere and meant not in allowed:
        other = "" if meant == name else f"There is no option {name!r}; did you mean {meant!r}? "
        return f"{other}The option {meant!r} is said {elsewhere[meant]}."
    return f"There is no option {name!r}; did you mean {meant!r}{NOTES.get(meant, '')}?"
