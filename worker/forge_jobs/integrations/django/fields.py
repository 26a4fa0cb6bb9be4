"""Columns of our tables as fields of Django's models: PostgreSQL and SQLite keep them differently."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import Lookup
from django.db.models.expressions import Col
from django.db.models.lookups import IsNull
from django.utils import timezone


class MomentColumn(Col):  # type: ignore[misc]  # which has no types here
    """A column of moments, as Django's own functions and comparisons expect it: in SQLite they take texts."""

    def as_sqlite(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        """Return it as Django writes moments into SQLite: in the time zone of the connection, and without a fraction of none."""
        column, parameters = self.as_sql(compiler, connection)
        seconds = f"datetime({column} / 1000000, 'unixepoch')"
        if connection.timezone_name != "UTC":
            zone = connection.timezone_name.replace("'", "''")
            seconds = f"django_datetime_trunc('second', {seconds}, '{zone}', 'UTC')"
        fraction = f"iif({column} %% 1000000, printf('.%%06d', {column} %% 1000000), '')"
        return f"({seconds} || {fraction})", (*parameters, *parameters, *parameters)


class Moment(models.DateTimeField):  # type: ignore[misc]  # which has no types here
    """A moment: in SQLite a number of microseconds since the epoch, which queries read as the text that Django would have written."""

    def get_internal_type(self) -> str:
        """Return the name by which Django's backends know moments."""
        return "DateTimeField"

    def get_col(self, alias: str, output_field: Any = None) -> Any:
        """Return the column in a query."""
        return MomentColumn(alias, self, output_field)

    @property
    def cached_col(self) -> Any:
        """Return the column in a query of its table alone."""
        return self.get_col(self.model._meta.db_table)

    def from_db_value(self, value: Any, *_: Any) -> datetime | None:
        """Return the moment, as Django has it."""
        return as_django_has_it(value)

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        """Return the moment, as it is compared with the column."""
        moment = self.to_python(value)
        if moment is not None and connection.vendor == "sqlite":
            return super().get_db_prep_value(moment, connection, prepared)
        if moment is not None and timezone.is_naive(moment):
            moment = timezone.make_aware(moment)
        return moment


class Tags(models.Field):  # type: ignore[misc]  # which has no types here
    """The tags of a job: in SQLite a JSON list. Queries may ask for `isnull`, and for `contains`: of all of these tags, or of one."""

    def get_lookup(self, lookup_name: str) -> Any:
        """Return what asks so; None: nobody may, since each database would take it for something else."""
        return {"contains": HasTags, "isnull": IsNull}.get(lookup_name)

    def from_db_value(self, value: Any, *_: Any) -> Sequence[str]:
        """Return the tags."""
        return tuple(json.loads(value) if isinstance(value, str) else value or ())


class HasTags(Lookup):  # type: ignore[misc]  # which has no types here
    """Whether a job has all of these tags."""

    lookup_name = "contains"
    prepare_rhs = False

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        """Return it as it is asked for in the database."""
        column, parameters = self.process_lhs(compiler, connection)
        has = f"EXISTS (SELECT 1 FROM json_each({column}) WHERE value = %s)"
        if connection.vendor != "sqlite":
            has = f"coalesce(%s = ANY ({column}), false)"
        tags = [self.rhs] if isinstance(self.rhs, str) else list(self.rhs)
        each = [(*parameters, tag) if connection.vendor == "sqlite" else (tag, *parameters) for tag in tags]
        return " AND ".join([has] * len(tags)) or "1 = 1", [one for some in each for one in some]


def as_django_has_it(moment: datetime | None) -> datetime | None:
    """Return the moment without a time zone, in that of the project, where Django uses none (USE_TZ)."""
    if moment is None or settings.USE_TZ or timezone.is_naive(moment):
        return moment
    naive: datetime = timezone.make_naive(moment)
    return naive
