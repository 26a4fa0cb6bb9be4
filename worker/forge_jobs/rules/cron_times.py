"""When a cron fires: expressions in a time zone, and which fires are due.

`scheduler` asks `due` for each cron; code that takes an expression from a person calls `parse` first. An
expression names local times (`cron_expression`); here they become instants.
"""

import functools
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from forge_jobs.errors import InvalidCron
from forge_jobs.model.cron import CronConfig, Missed
from forge_jobs.model.moments import EPOCH
from forge_jobs.rules.cron_expression import Fields
from forge_jobs.rules.cron_expression import parse as parse_fields

MISSED_AFTER = timedelta(seconds=60)
"""How late a fire may be before it counts as missed."""

_TICK = timedelta(microseconds=1)
_SECOND = timedelta(seconds=1)
_PROBE = timedelta(days=1)  # no zone ever changed its offset twice within a day
# Files beside the zones: what this host happens to be set to, and copies that count leap seconds.
_LOCAL = ("localtime", "posixrules")
_COPIES = ("right/", "posix/")


@dataclass(frozen=True, slots=True)
class FireTimes:
    """An expression in a time zone.

    Where the zone's clock is set forward, a local time that is skipped fires once, at the
    first instant after the gap; where it is set back, a local time that comes twice fires
    once, the first time. An expression that leaves no hour out (`*`, `*/1`, `0-23`) follows
    elapsed time instead: it fires in both passes of a repeated hour, and has nothing to
    make up for a skipped one.
    """

    expression: str
    timezone: str
    _fields: Fields = field(repr=False)
    _zone: ZoneInfo = field(repr=False)

    def next_after(self, moment: datetime) -> datetime:
        """Return the first fire later than `moment` (aware), in UTC. Raises InvalidCron at the end of time."""
        moment = _in_utc(moment)
        fire = self._next_elapsed(moment) if self._fields.every_hour else self._next_once(moment)
        if fire is None:
            raise InvalidCron(f"The cron expression {self.expression!r} never fires after {moment:%Y-%m-%d}.")
        return fire

    def fires_between(self, after: datetime, until: datetime, limit: int) -> list[datetime]:
        """Return the newest `limit` fires later than `after` and not later than `until`, oldest first, in UTC.

        Takes no longer when a year of fires lies between.
        """
        after, until = _in_utc(after), _in_utc(until)
        fires: list[datetime] = []
        while len(fires) < limit:
            fire = self._last_elapsed(until) if self._fields.every_hour else self._last_once(until)
            if fire is None or fire <= after:
                break
            fires.append(fire)
            until = fire - _TICK
        return fires[::-1]

    def _next_once(self, moment: datetime) -> datetime | None:
        overlap_end = self._overlap_end(moment)
        # In the second pass of a repeated hour, all its times have fired already.
        start = self._local(moment) if overlap_end is None else overlap_end - _TICK
        local = self._fields.after(start)
        return None if local is None else self._instant(local)

    def _last_once(self, moment: datetime) -> datetime | None:
        overlap_end = self._overlap_end(moment)
        local = self._fields.until(self._local(moment) if overlap_end is None else overlap_end - _TICK)
        return None if local is None else self._instant(local)

    def _instant(self, local: datetime) -> datetime:
        """Return when `local` is: the first time if it comes twice, the end of the gap if it never comes."""
        instant = local.replace(tzinfo=self._zone).astimezone(UTC)
        if self._local(instant) == local:
            return instant
        # Read with the offset after the gap, the time lies before it; and the reverse.
        return self._change(local.replace(tzinfo=self._zone, fold=1).astimezone(UTC), instant)

    def _overlap_end(self, moment: datetime) -> datetime | None:
        """Return the local time at which the first pass ended, when `moment` is in the second one."""
        local = moment.astimezone(self._zone)
        if not local.fold:
            return None
        first = local.replace(fold=0).astimezone(UTC)
        return self._change(first, moment).replace(tzinfo=None) + self._offset(first)

    def _next_elapsed(self, moment: datetime) -> datetime | None:
        start = self._local(moment)
        while (local := self._fields.after(start)) is not None:
            # While the offset stays, local time is elapsed time plus a constant.
            fire = local.replace(tzinfo=UTC) - self._offset(moment)
            change = self._first_change(moment, fire)
            if change is None:
                return fire
            moment, start = change, self._local(change) - _TICK
        return None

    def _last_elapsed(self, moment: datetime) -> datetime | None:
        while (local := self._fields.until(self._local(moment))) is not None:
            fire = local.replace(tzinfo=UTC) - self._offset(moment)
            change = self._last_change(fire, moment)
            if change is None:
                return fire
            moment = change - _TICK
        return None

    def _first_change(self, after: datetime, until: datetime) -> datetime | None:
        """Return the first instant later than `after` and not later than `until` at which the offset changes."""
        while after < until:
            probe = min(after + _PROBE, until)
            if self._offset(probe) != self._offset(after):
                return self._change(after, probe)
            after = probe
        return None

    def _last_change(self, after: datetime, until: datetime) -> datetime | None:
        """Return the last instant later than `after` and not later than `until` at which the offset changes."""
        while after < until:
            probe = max(until - _PROBE, after)
            if self._offset(probe) != self._offset(until):
                return self._change(probe, until)
            until = probe
        return None

    def _change(self, before: datetime, after: datetime) -> datetime:
        """Return the instant between the two at which the offset changes, by halving; a whole second."""
        offset = self._offset(before)
        low, high = (before - EPOCH) // _SECOND, -((EPOCH - after) // _SECOND)
        while high - low > 1:
            middle = (low + high) // 2
            if self._offset(EPOCH + middle * _SECOND) == offset:
                low = middle
            else:
                high = middle
        return EPOCH + high * _SECOND

    def _local(self, moment: datetime) -> datetime:
        return moment.astimezone(self._zone).replace(tzinfo=None)

    def _offset(self, moment: datetime) -> timedelta:
        return moment.astimezone(self._zone).utcoffset() or timedelta(0)


def parse(expression: str, timezone: str = "UTC") -> FireTimes:
    """Return `expression` in `timezone` (an IANA name).

    Raises InvalidCron with one sentence: what was given, what is allowed.
    """
    if not isinstance(expression, str) or not isinstance(timezone, str):
        raise InvalidCron(f"A cron is {expression!r} in {timezone!r}, allowed are two texts.")
    return _parse(expression, timezone)


def due(config: CronConfig, now: datetime) -> tuple[list[datetime], datetime]:
    """Return the fires of a cron to be enqueued `now`, oldest first, and its next one.

    A cron that has no next fire yet only gets one. Of fires that are due, `skip` drops
    those that are more than 60 s late, `latest` keeps only the newest, however late,
    and `all` the newest `missed_limit`; neither those that are older than `missed_within`. Raises InvalidCron.
    """
    if config.next_fire_at is not None and config.next_fire_at > now:
        return [], config.next_fire_at
    cron = parse(config.expression, config.timezone)
    following = cron.next_after(now)
    if config.next_fire_at is None:
        return [], following
    # In UTC, because a zone's own arithmetic runs through its gaps.
    return _kept(config, cron, _in_utc(config.next_fire_at), _in_utc(now)), following


def _kept(config: CronConfig, cron: FireTimes, expected: datetime, now: datetime) -> list[datetime]:
    if config.missed_within is not None:
        expected = max(expected, now - config.missed_within)
    match config.missed:
        case Missed.LATEST:
            return cron.fires_between(expected - _TICK, now, 1)
        case Missed.ALL:
            return cron.fires_between(expected - _TICK, now, max(config.missed_limit, 1))
        case _:
            oldest = max(expected, now - MISSED_AFTER)
            return cron.fires_between(oldest - _TICK, now, MISSED_AFTER // _SECOND + 1)


@functools.lru_cache(maxsize=4096)
def _parse(expression: str, timezone: str) -> FireTimes:
    return FireTimes(expression, timezone, parse_fields(expression), _zone(timezone))


def _zone(timezone: str) -> ZoneInfo:
    try:
        if timezone in _LOCAL or timezone.startswith(_COPIES):
            raise ValueError
        return ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidCron(
            f"The time zone is {timezone!r}, allowed is an IANA name such as UTC or Europe/Berlin."
        ) from None


def _in_utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError(f"A moment is {moment!r}, allowed is a datetime with a time zone.")
    return moment.astimezone(UTC)
