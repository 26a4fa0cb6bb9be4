"""The task framework: Django's own from 6.0 on, before that the backport django-tasks."""

from importlib import import_module
from typing import Any

import django

PACKAGE = "django.tasks" if django.VERSION >= (6, 0) else "django_tasks"

_base: Any = import_module(f"{PACKAGE}.base")
_exceptions: Any = import_module(f"{PACKAGE}.exceptions")

tasks: Any = import_module(PACKAGE)
signals: Any = import_module(f"{PACKAGE}.signals")
BaseTaskBackend: Any = import_module(f"{PACKAGE}.backends.base").BaseTaskBackend
TaskContext: Any = _base.TaskContext
TaskError: Any = _base.TaskError
TaskResult: Any = _base.TaskResult
TaskResultStatus: Any = _base.TaskResultStatus
TaskResultDoesNotExist: Any = getattr(_exceptions, "TaskResultDoesNotExist", None) or getattr(
    _exceptions, "TaskResultDoesNotExistError", LookupError
)
normalize_json: Any = import_module(
    "django.utils.json" if django.VERSION >= (6, 0) else "django_tasks.utils"
).normalize_json
