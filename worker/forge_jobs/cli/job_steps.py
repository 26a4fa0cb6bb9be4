"""What a job has done and waits for, as tables: its steps, and the signals that are kept for it."""

import json

from forge_jobs.cli.table import Rows
from forge_jobs.cli.values import shortened
from forge_jobs.client.document import readable
from forge_jobs.model.job import Job
from forge_jobs.model.signal import CIRCLE
from forge_jobs.model.step import JobStep, StepSort
from forge_jobs.rules.words import to_the_second, waits_for


def steps(job: Job) -> Rows:
    """Return the steps that a job has done, and what it waits for."""
    return Rows(
        ["step", "name", "attempt", "at", "result"],
        [
            [
                "" if step.sort is StepSort.PATCH else str(step.number),
                step.name,
                str(step.attempt),
                to_the_second(step.at),
                shortened(_outcome(step, job)),
            ]
            for step in job.steps
        ],
        right=frozenset({"step"}),
    )


def signals(job: Job) -> Rows:
    """Return the signals that no wait has taken."""
    return Rows(
        ["kept signal", "at", "value"],
        [
            [
                signal.name,
                to_the_second(signal.at),
                shortened(json.dumps(readable(signal.value, signal.codec, job.redacted), ensure_ascii=False)),
            ]
            for signal in job.signals
        ],
    )


def _outcome(step: JobStep, job: Job) -> str:
    if step.sort is StepSort.SLEEP and step.until is not None:
        return f"{'slept' if step.is_over else 'sleeps'} until {to_the_second(step.until)}"
    if step.sort is StepSort.PATCH:
        return "patched"
    if step.sort is StepSort.WAIT and not step.is_over:
        end = "" if step.until is None else f" until {to_the_second(step.until)}"
        return f"waits for {waits_for(step)}{end}"
    if step.sort is StepSort.WAIT and step.signal == CIRCLE:
        return f"refused: job {step.for_job} waits for this one"
    if step.sort is StepSort.WAIT and step.signal is None:
        return f"timed out, waiting for {waits_for(step)}"
    return json.dumps(readable(step.result, step.codec, job.redacted), ensure_ascii=False)
