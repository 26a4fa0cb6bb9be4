"""What holds for all tests here: a machine that is busy fails none of them, nor do a shell that runs them in its background and nohup."""

import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from forge_jobs.codecs import plain

settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")

# A shell has what it runs in its background ignore Ctrl-C, and nohup SIGHUP; all that such a process starts does.
for number, heard in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, heard)


@pytest.fixture(autouse=True)
def own_codecs() -> Iterator[None]:
    """Codecs are of the whole process: each test begins with those built in, and what it registers ends with it."""
    before, plain._codecs = plain._codecs, dict(plain._BUILT_IN)
    yield
    plain._codecs = before
