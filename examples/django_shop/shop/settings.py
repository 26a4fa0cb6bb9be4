"""The settings of the shop: what forge-jobs needs is at the end."""

import os

SECRET_KEY = os.environ.get("SHOP_SECRET_KEY", "of an example that nobody can reach")
DEBUG = "SHOP_SECRET_KEY" not in os.environ
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
ROOT_URLCONF = "shop.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("SHOP_DATABASE", "shop.sqlite3"),
        "OPTIONS": {"timeout": 30, "transaction_mode": "IMMEDIATE"},
        "TEST": {"NAME": "test.sqlite3"},  # jobs need a file
    }
}

INSTALLED_APPS = ["shop", "forge_jobs.integrations.django"]
TASKS = {
    "default": {
        "BACKEND": "forge_jobs.integrations.django.backend.ForgeBackend",
        "QUEUES": ["default", "mail"],
        "OPTIONS": {"DATABASE": "default", "MAX_ATTEMPTS": 5},
    }
}
