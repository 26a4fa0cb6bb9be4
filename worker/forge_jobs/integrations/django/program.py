"""The program of a Django project, for `forge-jobs` and its workers: FORGE_APP=forge_jobs.integrations.django.program:forge.

DJANGO_SETTINGS_MODULE says which project, DJANGO_FORGE_BACKEND which of the backends in its TASKS, if not the default one.
"""

import os
from typing import Any

import django
from django.apps import apps
from django.utils.module_loading import autodiscover_modules

from forge_jobs.errors import InvalidInput
from forge_jobs.integrations.django.backend import ForgeBackend
from forge_jobs.integrations.django.connection_care import try_out_connections
from forge_jobs.integrations.django.tasks_api import tasks

APP = f"{__name__}:forge"
BACKEND = "DJANGO_FORGE_BACKEND"


def chosen_backend(alias: str) -> ForgeBackend:
    """Return the backend with this alias, which knows the tasks of all apps. Raises InvalidInput when it is not ours."""
    if alias not in tasks.task_backends.settings:
        there = ", ".join(sorted(tasks.task_backends.settings))
        raise InvalidInput(f"There is no {alias!r} in TASKS, allowed are {there}.")
    backend = tasks.task_backends[alias]
    if not isinstance(backend, ForgeBackend):
        raise InvalidInput(f"TASKS[{alias!r}] is {type(backend).__name__}, allowed is ForgeBackend.")
    autodiscover_modules("tasks")
    return backend


def __getattr__(name: str) -> Any:
    if name != "forge":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if not apps.ready:
        django.setup()
    forge = chosen_backend(os.environ.get(BACKEND, "default")).forge
    try_out_connections()
    return forge
