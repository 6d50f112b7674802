"""Time of a run: progress, an estimate of what is left, and a limit at which it ends early."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

LONG_RUN_S = 30.0  # above which a run says how long it takes
_FIRST_LOOK_S = 3.0  # of steps, before what is left is estimated from them


class LongRunWarning(UserWarning):
    """Estimate of the time that a long run takes; shown at once, where others are collected."""


class TimeLimitReached(TimeoutError):
    """Raised where the time limit of a run is over; methods catch it and return what there is."""


class BatchProgress:
    """Progress of one of several batches, told as that of all: (step, steps) in steps of the first.

    Parameters
    ----------
    before, own, total
        Work in the batches before this one, in it, and in all, of any unit.
    inner
        Called with (step, steps) of all; may be None.
    first
        Of the batch before: what one unit of work is in steps.

    Examples
    --------
    >>> told = []
    >>> one = BatchProgress(0, 2, 6, lambda *pair: told.append(pair))
    >>> one(5, 10)
    >>> BatchProgress(2, 4, 6, one.inner, one)(150, 200)
    >>> told
    [(5, 30), (25, 30)]
    """

    def __init__(
        self, before: float, own: float, total: float,
        inner: Callable[[int, int], None] | None = None, first: BatchProgress | None = None,
    ) -> None:  # fmt: skip
        self.before, self.own, self.total, self.inner = before, own, total, inner
        self.steps_per_unit = first.steps_per_unit if first is not None else 0.0
        self.done = before  # so far; a run that turns out to be longer does not go back

    def __call__(self, step: int, steps: int) -> None:
        """Tell of a step."""
        self.steps_per_unit = self.steps_per_unit or steps / self.own
        self.done = max(self.done, self.before + self.own * step / steps)
        if self.inner is not None:
            self.inner(
                round(self.steps_per_unit * self.done), round(self.steps_per_unit * self.total)
            )


class RunClock:
    """Clock of one run of an inference method.

    Called with (step, steps) after each step, it reports progress, says once how long the run takes
    if that is more than 30 s, and ends the run at its time limit. It draws no random numbers.

    Parameters
    ----------
    limit_s
        Seconds that the run may take, None for no limit.
    progress
        Called with (step, steps) after each step.
    name, faster
        Of the method, and what would be faster, for the estimate.

    Examples
    --------
    >>> clock = RunClock(limit_s=60.0)
    >>> clock(1, 10)
    >>> 59 < clock.time_left_s() <= 60
    True
    """

    def __init__(
        self,
        limit_s: float | None = None,
        progress: Callable[[int, int], None] | None = None,
        name: str = "",
        faster: str = "",
    ) -> None:
        self.limit_s, self.progress, self.name, self.faster = limit_s, progress, name, faster
        self.deadline = float("inf") if limit_s is None else perf_counter() + limit_s
        self.first: tuple[int, float] | None = None  # step, and when it was done
        self.estimated = False

    def __call__(self, step: int, steps: int) -> None:
        """Count a step.

        Raises
        ------
        TimeLimitReached
            If the time is over.
        """
        if self.progress is not None:
            self.progress(step, steps)
        now = perf_counter()
        if self.first is None:  # the first step is longer than others: compiled, or loaded
            self.first = (step, now)
        elif self.name and step > self.first[0] and now - self.first[1] > _FIRST_LOOK_S:
            left_s = (now - self.first[1]) / (step - self.first[0]) * (steps - step)
            self.announce(left_s, f"{self.name} takes about {format_duration(left_s)} more")
        if step < steps:
            self.check()

    def check(self) -> None:
        """Raise `TimeLimitReached` if the time is over."""
        if self.time_left_s() <= 0:
            raise TimeLimitReached(f"the time limit of {self.limit_s:g} s was reached")

    def time_left_s(self) -> float:
        """Seconds until the limit, infinite without one."""
        return self.deadline - perf_counter()

    @contextmanager
    def share(self, parts: int) -> Iterator[None]:
        """Give what is done within one of the ``parts`` that the time left is for."""
        deadline = self.deadline
        self.deadline -= self.time_left_s() * (1 - 1 / parts) if self.limit_s is not None else 0.0
        try:
            yield
        finally:
            self.deadline = deadline

    def announce(self, seconds: float, text: str) -> None:
        """Say once how long the run takes, if that is long and no limit ends it before."""
        of_all_s, batch = seconds, self.progress
        if isinstance(batch, BatchProgress):
            if batch.before:  # said with the first
                return
            of_all_s *= batch.total / batch.own
        if of_all_s <= LONG_RUN_S or self.estimated or not self.name:
            return
        self.estimated = True
        if of_all_s > 1.05 * seconds:
            text += f" for the first batch, all of them about {format_duration(of_all_s)}"
        if self.time_left_s() < seconds:
            text += f"; the time limit ends it after {format_duration(self.limit_s or 0.0)}"
        else:
            text += "; a time limit (time_limit_s, --time-limit) ends it early with what there is"
        if self.faster:
            text += f". Faster: {self.faster}"
        warnings.warn(text, LongRunWarning, stacklevel=3)


def format_duration(seconds: float, at_most: bool = False) -> str:
    """Duration in the unit that suits it.

    Parameters
    ----------
    seconds
        How long.
    at_most
        Whether it is an upper limit, which is rounded up.

    Examples
    --------
    >>> [format_duration(s) for s in (0.21, 42, 600, 9000)]
    ['0.2 s', '42 s', '10 min', '2.5 h']
    >>> format_duration(145), format_duration(145, at_most=True)
    ('2 min', '3 min')
    """
    unit, digits, size = "h", 1, 3600.0
    if seconds < 100:
        unit, digits, size = "s", 0 if seconds >= 10 else 1, 1.0
    elif seconds < 6000:
        unit, digits, size = "min", 0, 60.0
    value = seconds / size
    if at_most:  # but for the rounding of numbers
        value = math.ceil(value * 10**digits - 1e-6) / 10**digits
    return f"{value:.{digits}f} {unit}"
