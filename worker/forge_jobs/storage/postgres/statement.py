"""Statements with parts that are filled in."""


def filled(statement: str, **parts: str) -> str:
    """Return the statement with the text of each part in place of its name in braces."""
    for name, text in parts.items():
        statement = statement.replace("{" + name + "}", text)
    return statement
