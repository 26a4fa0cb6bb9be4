"""Who manages configuration, besides people: an operator's object, such as `ForgeQueue shop/mail`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Owner:
    """An owner and what it manages, each in the order of names; nobody else may change or delete that."""

    name: str
    queues: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    crons: tuple[str, ...] = ()
