"""The epoch of the operator that writes, in SQLite, where one transaction writes at a time."""

from forge_jobs.errors import PastEpoch
from forge_jobs.storage.sqlite.transaction import Transaction


def is_present(transaction: Transaction, epoch: int) -> bool:
    """Whether the operator of this epoch writes."""
    return bool(transaction.value("SELECT epoch = ? FROM operator", (epoch,)))


def require_epoch(transaction: Transaction, epoch: int | None) -> None:
    """Raise PastEpoch unless the operator of this epoch writes; None: somebody does who is none."""
    if epoch is not None and not is_present(transaction, epoch):
        raise PastEpoch(epoch)
