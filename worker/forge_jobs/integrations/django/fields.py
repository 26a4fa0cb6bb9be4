"""Columns of our tables as fields of Django's models: PostgreSQL and SQLite keep them differently."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import models
from django.utils import timezone

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class AsDjangoReads(models.Transform):  # type: ignore[misc]  # which has no types here
    """A moment as Django's own functions for its date, its year and so on read it: in SQLite they take a text."""

    output_field = models.DateTimeField()

    def as_sql(self, compiler: Any, connection: Any, **_: Any) -> tuple[str, Any]:
        """Return it as it is."""
        sql, parameters = compiler.compile(self.lhs)
        return sql, parameters

    def as_sqlite(self, compiler: Any, connection: Any, **_: Any) -> tuple[str, Any]:
        """Return it as a text."""
        sql, parameters = compiler.compile(self.lhs)
        return f"datetime({sql} / 1000000, 'unixepoch')", parameters


class Moment(models.DateTimeField):  # type: ignore[misc]  # which has no types here
    """A moment: in SQLite a number of microseconds since the epoch."""

    def get_internal_type(self) -> str:
        """Return a name of which Django's backends know nothing, so that they convert nothing."""
        return "Moment"

    def from_db_value(self, value: Any, *_: Any) -> datetime | None:
        """Return the moment, as Django has it."""
        if isinstance(value, int):
            value = EPOCH + value * MICROSECOND
        return as_django_has_it(value)

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        """Return the moment, as the database has it."""
        moment = self.to_python(value)
        if moment is not None and timezone.is_naive(moment):
            moment = timezone.make_aware(moment)
        if moment is not None and connection.vendor == "sqlite":
            return (moment - EPOCH) // MICROSECOND
        return moment

    def get_transform(self, lookup_name: str) -> Any:
        """Return what takes a part of the moment, such as its date; None for what it does not have."""
        part = super().get_transform(lookup_name)
        return None if part is None else lambda moment: part(AsDjangoReads(moment))


class Tags(models.Field):  # type: ignore[misc]  # which has no types here
    """The tags of a job: in SQLite a JSON list."""

    def from_db_value(self, value: Any, *_: Any) -> Sequence[str]:
        """Return the tags."""
        return tuple(json.loads(value) if isinstance(value, str) else value or ())


def as_django_has_it(moment: datetime | None) -> datetime | None:
    """Return the moment without a time zone, in that of the project, where Django uses none (USE_TZ)."""
    if moment is None or settings.USE_TZ or timezone.is_naive(moment):
        return moment
    naive: datetime = timezone.make_naive(moment)
    return naive
