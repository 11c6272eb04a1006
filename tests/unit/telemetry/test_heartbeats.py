from agent.telemetry.heartbeats import Heartbeats, Late


def test_a_stage_is_late_behind_its_deadline_and_not_before() -> None:
    """The limit itself still counts as in time."""
    heartbeats = Heartbeats()
    heartbeats.expect("capture", since_s=100.0, within_s=20.0)
    assert heartbeats.late(120.0) == ()
    assert heartbeats.late(120.5) == (Late("capture", 20.5),)


def test_a_sign_of_life_moves_the_deadline() -> None:
    """What counts is the last one."""
    heartbeats = Heartbeats()
    heartbeats.expect("capture", since_s=100.0, within_s=20.0)
    heartbeats.expect("capture", since_s=119.0, within_s=20.0)
    assert heartbeats.late(130.0) == ()


def test_a_stage_that_has_nothing_to_do_is_never_late() -> None:
    """Silence at night is no fault; a stage that never had anything to do is not known at all."""
    heartbeats = Heartbeats()
    heartbeats.rest("transcribe")
    heartbeats.expect("transcribe", since_s=0.0, within_s=1.0)
    heartbeats.rest("transcribe")
    assert heartbeats.late(1e9) == ()


def test_each_stage_has_a_deadline_of_its_own_and_the_longest_silent_comes_first() -> None:
    """One that lives does not excuse another."""
    heartbeats = Heartbeats()
    heartbeats.expect("capture", since_s=100.0, within_s=20.0)
    heartbeats.expect("transcribe", since_s=50.0, within_s=60.0)
    heartbeats.expect("listen", since_s=125.0, within_s=10.0)
    assert [late.stage for late in heartbeats.late(130.0)] == ["transcribe", "capture"]


def test_what_is_late_says_so_in_words() -> None:
    """As it stands in the log and in `systemctl status`."""
    assert str(Late("transcribe", 61.4)) == "transcribe has been silent for 61 s"
