"""Signals that ask a command to end: Ctrl-C, the end of a batch job or of a spot machine, or a closed terminal."""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

_NUMBERS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_ECHO = 0.5  # seconds within which a second signal is ignored, because shells and schedulers send some signals twice
_PATIENCE = 3.0  # seconds after a signal that the main thread may spend in a long call, such as a compilation


class Interrupted(KeyboardInterrupt):
    """Interruption by a signal that asks the command to end.

    Args:
      number: number of the signal.
      kept: part of the message that says what remains and how to continue; empty for the command's usual text.
    """

    def __init__(self, number: int, kept: str = ""):
        super().__init__(kept)
        self.number, self.kept = number, kept


class _State:
    """State that the handlers share with the command.

    Attributes:
      number: number of the signal that arrived; 0 for none.
      polls: whether the command calls `asked` itself, so that a signal raises no exception.
    """

    number = 0
    polls = False


_state = _State()


def asked() -> int:
    """Return the number of the signal that asks the command to end; 0 for none."""
    return _state.number


def poll() -> None:
    """Announce that the command calls `asked` from now on, so that a signal raises no exception."""
    _state.polls = True


def said(number: int) -> str:
    """Describe a signal for a message."""
    return f"interrupted ({signal.Signals(number).name})"


@contextlib.contextmanager
def handled(script: str, ends: bool) -> Iterator[None]:
    """Let a signal end a command cleanly.

    The signal raises `Interrupted` or, if the command polls, makes `asked` return the number of the signal.

    Ignored signals stay ignored, as under nohup. Outside the main thread, this function changes nothing.

    Args:
      script: name of the command, for messages.
      ends: whether the process ends after the command. If so, a second signal ends the process immediately, and the
        first signal ends it after a few seconds if the main thread is in a long call and the command does not poll.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _state.number, _state.polls = 0, False
    seen = threading.Event()
    # A handler that was not set from Python is None.
    before = {number: old for number in _NUMBERS if (old := signal.getsignal(number)) not in (signal.SIG_IGN, None)}

    def handle(number: int, frame: object) -> None:
        again, _state.number = _state.number, _state.number or number
        seen.set()
        if not (_state.polls or (again and ends)):
            raise Interrupted(number)

    with _watched(script, seen, before) if ends else contextlib.nullcontext():
        try:
            for number in before:
                signal.signal(number, handle)
            yield
        finally:
            for number, old in before.items():
                # Python's own handler of SIGINT would show a traceback while the process ends.
                signal.signal(number, signal.SIG_DFL if ends and number == signal.SIGINT else old)


@contextlib.contextmanager
def _watched(script: str, seen: threading.Event, handlers: Mapping[int, Any]) -> Iterator[None]:
    """Run a thread that notices a signal immediately, and ends the process if the main thread does not do so."""
    inbox, outbox = socket.socketpair()
    outbox.setblocking(False)

    def heard() -> int:
        while number := next(iter(inbox.recv(1)), 0):
            if number in handlers:
                return number
        return 0

    def watch() -> None:
        number, start = heard(), time.monotonic()
        if number and (seen.wait(_PATIENCE) or _state.polls):
            while (number := heard()) and time.monotonic() - start < _ECHO:
                pass
        if number:
            line = f"{script}: {said(number)}; ended immediately, and what was written is kept\n"
            with contextlib.suppress(OSError):
                os.write(2, ("\n" * os.isatty(2) + line).encode())
            os._exit(128 + number)

    former = signal.set_wakeup_fd(outbox.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(former)
        outbox.close()
        watcher.join()
        inbox.close()
