"""The app: `"forge_jobs.integrations.django"` in INSTALLED_APPS."""

from typing import Any

from django.apps import AppConfig
from django.db import router
from django.db.models.signals import post_migrate

from forge_jobs.integrations.django.backend import backends
from forge_jobs.integrations.django.router import JobsRouter


class ForgeJobsConfig(AppConfig):  # type: ignore[misc]  # which has no types here
    """Makes the tables of the jobs whenever a database is migrated, and the queues of the tasks."""

    name = "forge_jobs.integrations.django"
    label = "forge_jobs"
    verbose_name = "Jobs"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """The app hears of migrations, and Django of its models."""
        post_migrate.connect(_migrated, sender=self)
        router.routers.append(JobsRouter())


def _migrated(using: str, **_: Any) -> None:
    for backend in backends():
        if backend.database == using:
            backend.migrate()
