"""Bounds that several parts of a custom resource share."""

QUEUE_NAME = r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$"
"""What the name of a queue looks like."""

LONGEST_NAME = 63
"""The longest name of an object and of a queue, in characters: both become values of labels."""

LONGEST_WHY = 500
ONE_LINE = r"^[^\x00-\x1f\x7f]+$"
"""What people say of a pause: on one line."""

MOST_PODS = 10_000

DAY = 86_400
YEAR = 365 * DAY
"""In seconds."""
