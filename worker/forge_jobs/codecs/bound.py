"""What values are bound to, in words: those that a codec binds can be read only as what they were written as.

A payload is bound to its kind. Kinds have no spaces in them, and everything else here has.
"""


def result_of(job_id: int) -> str:
    """Return what the result of a job is."""
    return f"result of job {job_id}"


def state_of(job_id: int) -> str:
    """Return what the saved state of a job is."""
    return f"state of job {job_id}"


def kept_for_key(kind: str, key: str) -> str:
    """Return what the state is that is saved for a key."""
    return f"state for a key of {kind} {key}"


def step_of(job_id: int, name: str) -> str:
    """Return what the result of a step is."""
    return f"step of job {job_id} {name}"


def signal_to(kind: str, name: str) -> str:
    """Return what the value of a signal is: who sends it by a key or a tag does not know the job."""
    return f"signal to {kind} {name}"


def is_payload(of: str) -> bool:
    """Whether a payload is bound to this."""
    return " " not in of
