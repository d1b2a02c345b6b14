"""Signals are remembered until the step is done; how often they come makes no difference."""

import signal

import pytest

from meduet_training.runtime.signals import EXIT_INTERRUPTED, EXIT_RESUMABLE, stop_signals


@pytest.fixture(autouse=True)
def heard():
    """Ctrl-C as a terminal gives it; a shell starts jobs in its background deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("number", "exit_code"),
    [
        (signal.SIGINT, EXIT_INTERRUPTED),
        (signal.SIGTERM, EXIT_RESUMABLE),
        (signal.SIGUSR1, EXIT_RESUMABLE),
    ],
)
def test_a_signal_is_remembered_until_the_step_is_done(number, exit_code):
    with stop_signals() as is_stopped:
        assert not is_stopped()
        signal.raise_signal(number)
        assert is_stopped()
        assert is_stopped.exit_code == exit_code


def test_a_second_ctrl_c_stops_at_once():
    with stop_signals() as is_stopped:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert is_stopped()


def test_a_second_sigterm_changes_nothing():
    with stop_signals() as is_stopped:
        for _ in range(3):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGUSR1)
        assert is_stopped()
        assert is_stopped.exit_code == EXIT_RESUMABLE


def test_afterwards_signals_do_what_they_did():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stop_signals():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
