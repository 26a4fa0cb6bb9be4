"""Reasons to stop a strand of a plan."""


class OutOfDate(Exception):
    """The plan is out of date: reconcile again."""


class Refused(Exception):
    """The API server refuses the object because of its content, and will refuse it again: remembered under `rejection`."""

    def __init__(self, rejection: str, message: str) -> None:
        self.rejection, self.message = rejection, message
        super().__init__(message)
