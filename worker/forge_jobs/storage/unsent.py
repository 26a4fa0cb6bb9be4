"""Calls that ended before anything of them was sent: the database carried out nothing of them.

Of any other call that was cancelled, or that the database did not answer, nobody knows.
"""


def unsent(error: BaseException) -> None:
    """The call that ends with `error`, a cancellation perhaps, was not sent."""
    error.is_of_unsent = True  # type: ignore[attr-defined]  # no class of ours could be a cancellation


def may_be_carried_out(error: BaseException) -> bool:
    """Whether the database may have carried out the call that ended with `error`."""
    return not getattr(error, "is_of_unsent", False)
