"""`forge-jobs jobs signal`: send a signal to a job, or to all that have a tag."""

from typing import Annotated, Any

from forge_jobs.cli import values
from forge_jobs.cli.command import Call, command
from forge_jobs.cli.opening import opened
from forge_jobs.cli.options import Argument, CommandGroup, Option
from forge_jobs.cli.output import Report
from forge_jobs.cli.table import Rows
from forge_jobs.model.signal import TAKEN, Signalled, SignalMode
from forge_jobs.rules.checks import MAX_ID

SENTENCES = {
    Signalled.WOKEN: "It waited for the signal, and goes on.",
    Signalled.KEPT: "It does not wait for the signal now; the signal is kept for when it does.",
    Signalled.DUPLICATE: "It was sent a signal of this name before, which counts; nothing was sent (--append sends one more).",
    Signalled.USED: "The token was used before; nothing was sent.",
    Signalled.REPLACED: "Another job took its place since the token was made; nothing was sent.",
    Signalled.FULL: "It has as many signals as a job may have, or as much in their values; nothing was sent.",
    Signalled.ENDED: "It has ended; nothing was sent.",
    Signalled.UNKNOWN: "There is no such job; nothing was sent.",
}


def register(group: CommandGroup) -> None:
    """`group` has the command."""
    command(group, "signal")(signal)


async def signal(
    call: Call,
    name: Annotated[str, Argument(help="The name of the signal.", metavar="NAME")],
    value: Annotated[
        str | None, Argument(help="Its value, as JSON. [default: null]", metavar="[JSON]")
    ] = None,
    job: Annotated[
        int | None,
        Option(metavar="ID", help="Send it to this job.", parser=values.whole("--job", least=1, most=MAX_ID)),
    ] = None,
    kind: Annotated[
        str | None,
        Option(metavar="KIND", help="The kind of the job with the key, or of the jobs with the tag."),
    ] = None,
    key: Annotated[
        str | None, Option(metavar="TEXT", help="Send it to the living job of the kind with this key.")
    ] = None,
    tag: Annotated[
        str | None, Option(metavar="TAG", help="Send it to all living jobs with this tag.")
    ] = None,
    append: Annotated[
        bool,
        Option(
            "--append",
            help="Also when the job was sent a signal of this name before: it is kept for one more wait.",
        ),
    ] = False,
) -> Report:
    """Send a signal to a job: it goes on if it waits for that, else it has it when it does. Exits with 1 when the job does not get it."""
    said = None if value is None else values.any_json(value, "The value")
    mode = SignalMode.APPEND if append else SignalMode.FIRST
    to: dict[str, Any] = {"job": job, "kind": kind, "key": key, "tag": tag}
    async with opened(call) as forge:
        send: Any = forge.signal  # which refuses what is given in vain
        answer = await send(name, said, mode=mode, **to)
    if tag is not None:
        return _of_all(tag, answer)
    sentence = SENTENCES[answer]
    is_taken = answer in TAKEN
    return Report({"answer": answer.value}, [sentence] if is_taken else [], () if is_taken else [sentence])


def _of_all(tag: str, answers: dict[int, Signalled]) -> Report:
    counts = {answer: list(answers.values()).count(answer) for answer in Signalled}
    rows = [[answer.value, f"{count:,}"] for answer, count in counts.items() if count]
    shown = Rows(["answer", "jobs"], rows, f"No living job has the tag {tag!r}.", frozenset({"jobs"}))
    return Report({str(job_id): answer.value for job_id, answer in answers.items()}, [shown])
