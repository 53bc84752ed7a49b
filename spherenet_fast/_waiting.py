"""Threads that wait for work soon go to sleep.

torch shares a loop among OpenMP's threads. Those of GCC's library spin while they wait for the next loop, for some
milliseconds: where anything else runs on their cores, they take the time of the very thread they wait for, and two
threads are several times slower than one. Whoever sleeps is served first on waking.
"""

import os
import sys

_CHOICES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")  # of the user, if either is set
_SPINS = "1000"  # some ten microseconds, in which most loops of a step follow on each other


def let_waiting_threads_sleep() -> bool:
    """Say so to the threads that torch is going to start; returns whether it could be said.

    It cannot once torch is loaded, and the environment's own choice holds.
    """
    if "torch" in sys.modules or any(name in os.environ for name in _CHOICES):
        return False
    os.environ["GOMP_SPINCOUNT"] = _SPINS
    return True
