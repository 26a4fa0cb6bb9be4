"""Why a strand of a plan goes no further."""


class OutOfDate(Exception):
    """What was planned from is no longer so: look again."""


class Refused(Exception):
    """What was sent is not valid and will not be later either: remembered by `rejection`."""

    def __init__(self, rejection: str, message: str) -> None:
        self.rejection, self.message = rejection, message
        super().__init__(message)
