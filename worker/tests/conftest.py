"""What holds for all tests here: a machine that is busy fails none of them, nor do a shell that runs them in its background and nohup."""

import signal

from hypothesis import HealthCheck, settings

settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")

# A shell has what it runs in its background ignore Ctrl-C, and nohup SIGHUP; all that such a process starts does.
for number, heard in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, heard)
