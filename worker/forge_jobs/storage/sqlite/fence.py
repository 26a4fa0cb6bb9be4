"""The epoch of the operator that writes, in SQLite, where one transaction writes at a time."""

from forge_jobs.errors import PastEpoch
from forge_jobs.model.epoch import OperatorEpoch
from forge_jobs.storage.sqlite.transaction import Transaction


def require_epoch(transaction: Transaction, epoch: OperatorEpoch | None) -> None:
    """Raise PastEpoch unless this is the epoch of the present operator; None: of one who is no operator."""
    if epoch is not None and not transaction.value("SELECT epoch = ? FROM operator", (epoch,)):
        raise PastEpoch(epoch)
