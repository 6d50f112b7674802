"""Interrupts that arrive while C code calls back are handled right after it."""

from __future__ import annotations

import signal
import threading

import pytest

from avse_ppl.utils.interrupts import delay_interrupt


def test_an_interrupt_is_raised_after_the_call():
    done = []

    def work():
        signal.raise_signal(signal.SIGINT)
        done.append(True)

    with pytest.raises(KeyboardInterrupt):
        delay_interrupt(work)
    assert done == [True]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_handler_of_the_host_is_called_once(monkeypatch):
    received = []
    before = signal.signal(signal.SIGINT, lambda *details: received.append(details[0]))
    try:
        assert delay_interrupt(lambda: signal.raise_signal(signal.SIGINT)) is None
        assert received == [signal.SIGINT]
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        assert delay_interrupt(lambda: 3) == 3
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_errors_pass_and_threads_call_plainly():
    with pytest.raises(ZeroDivisionError):
        delay_interrupt(lambda: 1 / 0)
    results = []
    thread = threading.Thread(target=lambda: results.append(delay_interrupt(lambda: 5)))
    thread.start()
    thread.join()
    assert results == [5]
