"""Ctrl-C and the signals by which schedulers end a job or warn of its end."""

import signal
import sys
from contextlib import suppress

# SLURM sends SIGTERM at the end, and before it what --signal asks for, as do other schedulers.
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")


class Interrupted(BaseException):
    """A training or dynamics was stopped by a signal. No `Exception`: what handles errors of a step is not to.

    Attributes:
        signum: the signal, as in `signal.Signals`.
        saved: whether the state after the last complete step is in the files of the run.
    """

    def __init__(self, signum: int, saved: bool):
        super().__init__(_name(signum))
        self.signum, self.saved = signum, saved


class StopSignals:
    """While entered, the first signal is only noted in `received`; Ctrl-C after it raises `Interrupted` at once.

    at_once: raise it at the first signal, where everything is saved. speaks: say on the terminal that one came.
    `notice` makes it stop for another reason, named by a signal: SIGCHLD, the death of a process that reads data.
    Signals that the process was started to ignore stay ignored. Outside the main thread, where Python delivers no
    signals, nothing is caught.
    """

    def __init__(self, at_once: bool = False, speaks: bool = True):
        self.at_once, self.speaks = at_once, speaks
        self.received: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self):
        numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
        handlers = {number: signal.getsignal(number) for number in numbers}
        self._before = {number: handler for number, handler in handlers.items() if handler != signal.SIG_IGN}
        self.listen()
        return self

    def __exit__(self, *exception):
        for number, handler in self._before.items():
            _set(number, handler)

    def listen(self) -> None:
        """Take the signals (back: Lightning puts a handler of its own on SIGTERM)."""
        for number in self._before:
            _set(number, self._note)

    def notice(self, number: int) -> None:
        """Note a signal, unless there was one."""
        self.received = number if self.received is None else self.received

    def _note(self, number, frame):
        if self.at_once:
            raise Interrupted(number, saved=True)
        if self.received is None:
            self.received = number
            again = " (Ctrl-C again: at once, without saving)" if number == signal.SIGINT else ""
            with suppress(RuntimeError):  # the signal came while a line was being printed
                if self.speaks:
                    print(f"\n{_name(number)}: stopping after this step{again}", file=sys.stderr, flush=True)
        elif number == signal.SIGINT:
            raise Interrupted(self.received, saved=False)


def _name(number: int) -> str:
    if number == getattr(signal, "SIGCHLD", None):
        return "the end of a process that read data"
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def _set(number: int, handler) -> None:
    with suppress(ValueError):  # not the main thread
        signal.signal(number, handler)
