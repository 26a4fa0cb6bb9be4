"""A shop in Django: a task is enqueued in the transaction of its order, and `forge_worker` runs it.

python manage.py migrate
python manage.py runserver & python manage.py forge_worker
curl --data item='a book' localhost:8000/orders/
python manage.py test

It needs Django 6.0, or 5.2 with django-tasks. SHOP_DATABASE names another SQLite file than shop.sqlite3.
"""

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
    execute_from_command_line(sys.argv)
