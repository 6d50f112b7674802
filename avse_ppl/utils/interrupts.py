"""Interrupts delayed while C code calls back into Python.

What a signal handler raises inside such a callback (`KeyboardInterrupt`) is printed and lost: the C
code goes on as if it had read nothing.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any, TypeVar

_Result = TypeVar("_Result")


def delay_interrupt(function: Callable[[], _Result]) -> _Result:
    """Call a function, and handle a SIGINT that arrives meanwhile right after it.

    Only the main thread of Python handles signals: in others this is a plain call.

    Examples
    --------
    >>> delay_interrupt(lambda: 2)
    2
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        return function()
    received: list[Any] = []
    signal.signal(signal.SIGINT, lambda *details: received.append(details))
    try:
        return function()
    finally:
        signal.signal(signal.SIGINT, handler)
        if received:
            handler(*received[0])
