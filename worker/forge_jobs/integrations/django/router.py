"""What Django is told of the database of our models."""

from typing import Any


class JobsRouter:
    """No database of Django's is to make or to dump the rows of our models, which it only reads."""

    def allow_migrate(self, db: str, app_label: str, **_: Any) -> bool | None:
        """Return False for our models; None: it is for others to say."""
        return False if app_label == "forge_jobs" else None
