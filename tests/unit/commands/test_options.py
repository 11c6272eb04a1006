import os
import signal

import pytest

from agent.commands.options import ended_in_order


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_both_endings_are_as_good_as_an_interrupt(number: signal.Signals) -> None:
    """Whatever cleans up behind Ctrl-C cleans up behind them; afterwards all is as it was."""
    before = signal.signal(number, signal.SIG_DFL)  # whoever runs the tests with nohup ignores one
    try:
        with pytest.raises(KeyboardInterrupt), ended_in_order():
            os.kill(os.getpid(), number)
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_what_nohup_ignores_stays_ignored() -> None:
    """A run that is to outlive its terminal does."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ended_in_order():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
