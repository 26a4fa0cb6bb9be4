"""What every change of configuration does, and who may make it."""

from collections.abc import Callable

from forge_jobs.errors import Managed
from forge_jobs.storage.sqlite.transaction import Transaction


def configured(transaction: Transaction) -> None:
    """The revision is one higher, and everybody is told."""
    transaction.execute("UPDATE revision SET revision = revision + 1")
    transaction.tell("config")


def require_owner(
    refusal: Callable[[str, str], Managed], name: str, owner: str | None, managed_by: str | None
) -> None:
    """Raise `refusal(name, owner)` when there is an owner other than `managed_by`."""
    if owner is not None and owner != managed_by:
        raise refusal(name, owner)
