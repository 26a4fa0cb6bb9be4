"""What jobs that have ended come to, for those who waited: results, or errors in their places."""

from collections.abc import Sequence
from typing import Any

from forge_jobs.codecs.bound import result_of
from forge_jobs.codecs.plain import decode
from forge_jobs.errors import ForgeError, JobDead, JobNotFound
from forge_jobs.handlers.arguments import fitted
from forge_jobs.model.job import EndedJob, State


def results(
    job_ids: Sequence[int], ends: Sequence[EndedJob | None], returns: Any, *, return_exceptions: bool
) -> list[Any]:
    """Return the results of these jobs, of the type `returns` unless that is None.

    Of those without one, the first raises its JobDead, JobNotFound or InvalidPayload; with `return_exceptions` each error
    stands in the place of its result.
    """
    found: list[Any] = []
    for job_id, end in zip(job_ids, ends, strict=True):
        try:
            found.append(_result(job_id, end, returns))
        except ForgeError as error:
            if not return_exceptions:
                raise
            found.append(error)
    return found


def _result(job_id: int, end: EndedJob | None, returns: Any) -> Any:
    if end is None:
        raise JobNotFound(job_id)
    if end.state is not State.DONE:
        raise JobDead(job_id, end.error)
    of = result_of(job_id)
    result = None if end.result is None else decode(end.result, end.codec, what="result", of=of)
    return result if returns is None else fitted(result, returns, f"result of job {job_id}")
