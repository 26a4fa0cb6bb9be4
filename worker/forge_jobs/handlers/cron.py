"""Crons that a handler declares: its jobs are enqueued by the clock."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Unpack

from forge_jobs.errors import InvalidInput
from forge_jobs.handlers.arguments import Arguments
from forge_jobs.handlers.options import Options

if TYPE_CHECKING:
    from forge_jobs.handlers.cron_options import CronValues
    from forge_jobs.model.cron import CronConfig

NOT_OF_CODE = {
    "enabled": "forge.crons.disable and enable say that, and it lasts when the code changes",
    "codec": "its arguments are JSON",
}
"""Options of a cron that a declared one cannot have, and why."""


class Cron:
    """A cron that a handler declares: `@forge.handler(cron=Cron("0 3 * * *", timezone="Europe/Berlin"))`.

    `name` is that of its kind when it is None. The other options are those of `forge.crons.set`; without `queue`, `priority`
    and so on its jobs have what the handler declares, its `tags` among it. Raises InvalidInput for an unknown option; all
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


def declared_crons(
    given: Any, kind: str, defaults: Options, arguments: Arguments, *, is_fair: bool
) -> "tuple[CronConfig, ...]":
    """Return the crons of the handler of `kind`, whose jobs have these `defaults` and take these `arguments`.

    Raises InvalidCron, InvalidInput, InvalidPayload.
    """
    listed = [given] if isinstance(given, str | Cron) else _listed(given, kind)
    if not listed:
        return ()
    from forge_jobs.handlers.cron_options import checked_cron  # late: most handlers have no cron

    crons: dict[str, CronConfig] = {}
    only_of_calls = {"unique": defaults.unique, "group": defaults.group, "fair_by": is_fair or None}
    for one in listed:
        cron = Cron(one) if isinstance(one, str) else one
        values: CronValues = {**cron.values}
        if defaults.tags:
            values.setdefault("tags", defaults.tags)
        if defaults.key is not None:
            values.setdefault("key", defaults.key)
        name = kind if cron.name is None else cron.name
        for option, value in only_of_calls.items():
            if value is not None:
                raise InvalidInput(
                    f"cron and {option} are both given, allowed is one of them: "
                    f"{option} does not hold for jobs that a cron enqueues."
                )
        config = checked_cron(name, cron.expression, kind, values)
        arguments.check(values.get("payload") or {})  # type: ignore[arg-type]  # it says itself what it takes
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
