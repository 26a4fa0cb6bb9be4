"""Why a strand of a plan goes no further."""


class OutOfDate(Exception):
    """The plan is out of date: reconcile again."""


class Refused(Exception):
    """The API server refuses the object for what it says, and always will: remembered by `rejection`."""

    def __init__(self, rejection: str, message: str) -> None:
        self.rejection, self.message = rejection, message
        super().__init__(message)
