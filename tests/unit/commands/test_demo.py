import signal

import pytest

from agent.audio.libasound import CHOOSE
from agent.cli import parser
from agent.commands import demo
from agent.errors import DeviceUnavailable


def test_a_microphone_that_is_not_there_is_said_first_and_in_words_of_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It takes `--mic`, not a setting; and no model is fetched for nothing."""

    def absent(_: object) -> None:
        raise DeviceUnavailable(f'cannot open the microphone "default" (no such device): {CHOOSE} pulse')

    monkeypatch.setattr(demo, "AlsaSource", absent)
    monkeypatch.setattr(demo, "pull", lambda *_: pytest.fail("a model was fetched"))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    args = parser("demo").parse_args(["demo", "--mic"])
    with pytest.raises(DeviceUnavailable, match=r"\(no such device\): take --mic pulse$"):
        args.run(args)
