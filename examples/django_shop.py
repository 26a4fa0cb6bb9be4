"""A Django project in one file: a task is enqueued in the transaction of its order, and `forge_worker` runs it.

`python examples/django_shop.py` needs Django 6.0, or 5.2 with django-tasks; SHOP_DATABASE names another SQLite file than shop.sqlite3.
"""

import os

import django
from django.conf import settings

settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ.get("SHOP_DATABASE", "shop.sqlite3"),
            "OPTIONS": {"timeout": 30, "transaction_mode": "IMMEDIATE"},
        }
    },
    INSTALLED_APPS=["forge_jobs.integrations.django"],
    TASKS={"default": {"BACKEND": "forge_jobs.integrations.django.backend.ForgeBackend"}},
    USE_TZ=True,
)
django.setup()

from django.core.management import call_command  # noqa: E402  settings come first
from django.db import connection, transaction  # noqa: E402

if django.VERSION >= (6, 0):
    from django.tasks import task
else:
    from django_tasks import task


@task(priority=10, takes_context=True)
def confirm(context, order: int) -> str:  # type: ignore[no-untyped-def]
    with connection.cursor() as cursor:
        cursor.execute("UPDATE shop_order SET confirmed = 1 WHERE id = %s", [order])
    return f"order {order} is confirmed at attempt {context.attempt}"


def main() -> None:
    call_command("migrate", verbosity=0)  # makes the tables of the jobs, too
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE shop_order (id integer PRIMARY KEY, confirmed integer DEFAULT 0)")
    for item in ("a book", "a bike"):
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("INSERT INTO shop_order DEFAULT VALUES")
                result = confirm.enqueue(cursor.lastrowid)
                if item == "a bike":
                    raise LookupError(f"{item} is not in stock")  # rolls back both
            print(item, result.status)
            first = result
        except LookupError as error:
            print(error)
    call_command("forge_worker", until_empty=True)
    first.refresh()
    print(first.status, first.return_value)


if __name__ == "__main__":
    main()
