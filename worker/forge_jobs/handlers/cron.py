"""Crons that a handler declares: its jobs are enqueued by the clock."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Unpack

from forge_jobs.errors import InvalidInput

if TYPE_CHECKING:
    from forge_jobs.handlers.cron_options import CronValues
    from forge_jobs.handlers.handler import Handler
    from forge_jobs.model.cron import CronConfig

NOT_OF_CODE = {
    "enabled": "forge.crons.disable and enable say that, and it lasts when the code changes",
    "codec": "its arguments are JSON",
}
"""Options of a cron that a declared one cannot have, and why."""


class Cron:
    """A cron that a handler declares: `@forge.handler(cron=Cron("0 3 * * *", timezone="Europe/Berlin"))`.

    `name` is that of its kind when it is None. The other options are those of `forge.crons.set`; without `queue`, `priority`
    and so on its jobs have what the handler declares, its `tags` and its `group` among it. Raises InvalidInput for an unknown option; all
    else is checked where the handler is declared.
    """

    def __init__(self, expression: str, *, name: str | None = None, **values: "Unpack[CronValues]") -> None:
        for option in NOT_OF_CODE.keys() & values.keys():
            raise InvalidInput(f"A cron of a handler has no option {option!r}: {NOT_OF_CODE[option]}.")
        self.expression, self.name, self.values = expression, name, values

    def __repr__(self) -> str:
        return f"<Cron {self.expression!r}>"


Crons = str | Cron | Sequence[str | Cron]
"""What a handler may say of its crons: an expression, a Cron, or several."""


def declared_crons(given: Any, handler: "Handler[..., Any, ..., Any]") -> "tuple[CronConfig, ...]":
    """Return the crons that the handler declares, whose jobs are as those of its calls. Raises InvalidCron, InvalidInput, InvalidPayload."""
    kind = handler.kind
    listed = [given] if isinstance(given, str | Cron) else _listed(given, kind)
    if not listed:
        return ()
    from forge_jobs.handlers.cron_options import checked_cron  # late: most handlers have no cron

    crons: dict[str, CronConfig] = {}
    for one in listed:
        cron = Cron(one) if isinstance(one, str) else one
        values: CronValues = {**cron.values}
        name = kind if cron.name is None else cron.name
        config = checked_cron(name, cron.expression, kind, values, handler)
        if name in crons:
            raise InvalidInput(
                f"Handler {kind!r} has two crons {name!r}, allowed are different names: Cron(..., name=...)."
            )
        crons[name] = config
    return tuple(crons.values())


def _listed(given: Any, kind: str) -> Sequence[str | Cron]:
    if isinstance(given, Sequence) and all(isinstance(one, str | Cron) for one in given):
        return given
    raise InvalidInput(
        f"cron of handler {kind!r} is {given!r}, allowed is an expression like '0 3 * * *', a Cron, or several."
    )
