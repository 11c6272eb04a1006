import pytest

from agent.cli import parser
from agent.commands import calibrate
from agent.models.calibration import CalibrationError


def test_what_could_not_be_kept_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A state folder that cannot be written is said at once, before a model is fetched and minutes are spent."""
    monkeypatch.setattr(calibrate, "pull", lambda *_: pytest.fail("a model was fetched"))
    monkeypatch.setattr(calibrate, "calibrate", lambda *_: pytest.fail("it measured"))
    args = parser("calibrate").parse_args(["calibrate", "--pull", "--set", "state_dir=/proc/edgescribe"])
    with pytest.raises(
        CalibrationError, match=r"^/proc/edgescribe/calibration\.json: cannot be written \(.+set state_dir"
    ):
        args.run(args)
