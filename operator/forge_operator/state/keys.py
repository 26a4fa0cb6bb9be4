"""What the operator looks at, by name."""

from typing import NamedTuple, Self

from forge_operator.naming import owner_of_rows

QUEUE, CRON = "ForgeQueue", "ForgeCron"


class Key(NamedTuple):
    """One object; there may be none of this name any more."""

    kind: str
    namespace: str
    name: str

    @property
    def owner(self) -> str:
        """How the object is called in the column managed_by."""
        return owner_of_rows(self.kind, self.namespace, self.name)

    @classmethod
    def of_owner(cls, owner: str) -> Self | None:
        """Return the object that an owner in `managed_by` names; None when it is not one of ours."""
        kind, _, place = owner.partition(" ")
        namespace, slash, name = place.partition("/")
        if kind not in (QUEUE, CRON) or not slash or not namespace or not name or "/" in name:
            return None
        return cls(kind, namespace, name)
