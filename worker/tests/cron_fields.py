"""What cron fields mean, said once more and plainly: what the search for the next time is compared with."""

from calendar import monthrange
from datetime import date, datetime

from forge_jobs.rules.cron_expression import Fields


def matches(fields: Fields, moment: datetime) -> bool:
    """Whether `moment` (a whole second) is one of the times."""
    return (
        moment.second in fields.seconds
        and moment.minute in fields.minutes
        and moment.hour in fields.hours
        and moment.month in fields.months
        and _is_day(fields, moment.date())
    )


def _is_day(fields: Fields, day: date) -> bool:
    if fields.days is None and fields.weekdays is None:
        return True
    return _is_day_of_the_month(fields, day) or _is_weekday(fields, day)


def _is_day_of_the_month(fields: Fields, day: date) -> bool:
    if fields.days is None:
        return False
    return day.day in fields.days or (fields.last_day and day.day == _length(day))


def _is_weekday(fields: Fields, day: date) -> bool:
    if fields.weekdays is None:
        return False
    weekday, number = day.isoweekday() % 7, (day.day - 1) // 7 + 1
    is_last = day.day + 7 > _length(day)
    return (
        weekday in fields.weekdays
        or (weekday, number) in fields.nth
        or (is_last and (weekday, -1) in fields.nth)
    )


def _length(day: date) -> int:
    return monthrange(day.year, day.month)[1]
