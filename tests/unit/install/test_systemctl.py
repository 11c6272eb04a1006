from agent.install.systemctl import devices, exposure_in


def test_systemds_own_words_are_understood() -> None:
    """As systemd 252 prints them."""
    assert exposure_in("x\n→ Overall exposure level for edgescribe.service: 1.2 OK :-)\n") == 1.2
    assert exposure_in("Unit edgescribe.service could not be found.") is None
    shown = "DevicePolicy=closed\nDeviceAllow=char-alsa rw\nDeviceAllow=/dev/nvmap rw\n"
    assert devices(shown) == ("char-alsa", "/dev/nvmap")
    assert devices("DeviceAllow=char-alsa rw /dev/nvmap rw\n") == ("char-alsa", "/dev/nvmap")
