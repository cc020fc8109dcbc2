"""Ctrl-C on a study: the first asks it to end with what is finished, the second ends it at once."""

import os
import signal
import time
from pathlib import Path

import pytest

from influence_core.cli import output
from influence_core.events import Progress, Result
from influence_core.runs import registry
from influence_core.runs.stopping import stop_requested


@pytest.fixture(autouse=True)
def interruptible():
    """As in a terminal; what a shell starts in the background ignores interrupts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0)  # a bytecode boundary, at which Python calls the handler


def study(result: Path, interrupts: int):
    """A run that is interrupted so often, and ends early where it was asked to."""
    for step in range(5):
        if stop_requested(result):
            break
        if step == 2:
            for _ in range(interrupts):
                interrupt()
        yield Progress(phase="measuring", done=step, total=5)
    yield Result(value={"steps": step})


@pytest.mark.parametrize(("interrupts", "reached"), [(0, 4), (1, 3)])
def test_a_first_interrupt_ends_with_what_is_finished(monkeypatch, capsys, interrupts, reached):
    monkeypatch.setattr(registry, "start", lambda spec, result: study(result, interrupts))
    before = signal.getsignal(signal.SIGINT)
    assert output.run_here(None, early=True) == {"steps": reached}
    assert signal.getsignal(signal.SIGINT) is before
    assert ("stopping, with what is finished" in capsys.readouterr().err) == bool(interrupts)


def test_a_second_interrupt_ends_at_once(monkeypatch):
    monkeypatch.setattr(registry, "start", lambda spec, result: study(result, 2))
    with pytest.raises(KeyboardInterrupt):
        output.run_here(None, early=True)


def test_without_a_stop_the_first_one_ends_at_once(monkeypatch):
    monkeypatch.setattr(registry, "start", lambda spec, result: study(result, 1))
    with pytest.raises(KeyboardInterrupt):
        output.run_here(None)


def test_what_ignores_interrupts_goes_on_ignoring_them(monkeypatch):
    monkeypatch.setattr(registry, "start", lambda spec, result: study(result, 2))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert output.run_here(None, early=True) == {"steps": 4}
