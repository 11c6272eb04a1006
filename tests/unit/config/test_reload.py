from agent.config.commanded import plan_reload
from agent.config.settings import (
    AlsaSettings,
    FasterWhisperSettings,
    LogSettings,
    MqttSettings,
    Settings,
    TelemetrySettings,
    VadSettings,
    WhisperCppSettings,
)


def test_the_same_settings_change_nothing() -> None:
    """A reload without an edit is harmless, and says so."""
    reload = plan_reload(Settings(), Settings())
    assert (reload.applied, reload.needs_restart, reload.engine) == ((), (), False)
    assert str(reload) == "nothing to apply"


def test_what_can_be_applied_is_told_from_what_cannot() -> None:
    """Two changes in one section may have different fates, and the one that has to wait stays as it was."""
    current = Settings(vad=VadSettings(threshold=0.5, kind="silero"))
    wanted = Settings(vad=VadSettings(threshold=0.7, kind="energy"), mqtt=MqttSettings(host="hub"))
    reload = plan_reload(current, wanted)
    assert reload.applied == ("vad.threshold",)
    assert reload.needs_restart == ("mqtt.host", "vad.kind")
    assert (reload.settings.vad.threshold, reload.settings.vad.kind) == (0.7, "silero")
    assert reload.settings.mqtt.host == "localhost"
    assert str(reload) == "applied vad.threshold; needs a restart: mqtt.host, vad.kind"


def test_everything_about_the_engine_can_be_changed() -> None:
    """Even its kind: another one is loaded beside it."""
    wanted = Settings(engine=FasterWhisperSettings(language="de"))
    reload = plan_reload(Settings(engine=WhisperCppSettings()), wanted)
    assert reload.engine
    assert reload.needs_restart == ()
    assert reload.settings.engine == wanted.engine


def test_how_much_is_said_can_be_changed() -> None:
    """Log and telemetry do not touch the engine."""
    wanted = Settings(log=LogSettings(level="debug"), telemetry=TelemetrySettings(interval_s=5.0))
    reload = plan_reload(Settings(), wanted)
    assert reload.applied == ("log.level", "telemetry.interval_s")
    assert not reload.engine
    assert reload.settings == wanted


def test_another_microphone_needs_a_restart() -> None:
    """The source is opened once."""
    reload = plan_reload(Settings(), Settings(source=AlsaSettings(device="plughw:CARD=USB")))
    assert reload.needs_restart == ("source.device",)


def test_secrets_are_compared_and_not_shown() -> None:
    """A new password is noticed by its key alone."""
    current, wanted = (Settings(mqtt=MqttSettings.model_validate({"password": word})) for word in ("old", "new"))
    reload = plan_reload(current, wanted)
    assert reload.needs_restart == ("mqtt.password",)
    assert "new" not in str(reload).replace("needs", "")
