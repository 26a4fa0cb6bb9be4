"""The app has no tables of Django's; with this file Django tells it of migrations."""
