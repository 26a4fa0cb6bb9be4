"""Numbers, durations and what others wrote, in sentences."""


def count(number: int, noun: str, verbs: tuple[str, str] | None = None) -> str:
    """Return "1 job" or "2 jobs"; with `verbs`, such as ("waits", "wait"), the one that goes with it."""
    phrase = f"{number} {noun}" if number == 1 else f"{number} {noun}s"
    return phrase if verbs is None else f"{phrase} {verbs[number != 1]}"


def seconds(length: float) -> str:
    """Return a duration in words."""
    return f"{length:.0f} s" if length >= 10 else f"{length:.2g} s"


def printable(text: str) -> str:
    """Return a text as the database keeps it: with spaces for characters that nobody sees, like those that join parts of an emoji."""
    return "".join(character if character.isprintable() else " " for character in text)
