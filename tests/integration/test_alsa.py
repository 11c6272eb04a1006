import itertools
import os
import subprocess
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from agent.asr.transcriber import Transcriber
from agent.asr.transcript import Transcript
from agent.audio.alsa import AlsaSource
from agent.audio.frames import FRAME_SAMPLES, AudioFrame, Pcm16, Utterance
from agent.audio.libasound import CaptureDevice, capture_devices
from agent.audio.microphone import Microphone, open_source
from agent.channel import Overflow
from agent.commands import devices
from agent.config.settings import AlsaSettings, SegmenterSettings
from agent.errors import DeviceStalled, DeviceUnavailable, EngineError, SourceError
from agent.segmenter import Listener, Segmenter
from agent.vad.energy import EnergyDetector
from tests.support.clips import clip, silence
from tests.support.receiver import eventually
from tests.support.virtual_microphone import VirtualMicrophone

pytestmark = pytest.mark.alsa


@pytest.fixture
def microphone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[VirtualMicrophone]:
    """A microphone that libasound sees in this process."""
    virtual = VirtualMicrophone(tmp_path)
    for name, content in virtual.environment.items():
        monkeypatch.setenv(name, content)
    yield virtual
    virtual.unplug()


@pytest.fixture
def source(microphone: VirtualMicrophone) -> Iterator[AlsaSource]:
    """That microphone, opened."""
    opened = AlsaSource(AlsaSettings(device=microphone.device), stall_s=1.0)
    yield opened
    opened.close()


def noise(seconds: float) -> Pcm16:
    """Samples that no gap, shift or repetition leaves the same."""
    return np.random.default_rng(7).integers(-30_000, 30_000, int(seconds * 16_000), np.int16)


def playing(microphone: VirtualMicrophone, pcm: Pcm16) -> threading.Thread:
    """Play in the background."""
    player = threading.Thread(target=microphone.play, args=(pcm,))
    player.start()
    return player


def collect(source: AlsaSource, count: int) -> list[AudioFrame]:
    """The next `count` frames."""
    frames = []
    for _ in range(count):
        frame = source.read()
        assert frame is not None
        frames.append(frame)
    return frames


def test_sound_arrives_whole_in_order_and_on_time(microphone: VirtualMicrophone, source: AlsaSource) -> None:
    """What the microphone hears comes out sample for sample, in frames of 512, and no faster than it was spoken."""
    spoken = noise(3.2)
    started_ns = time.monotonic_ns()
    player = playing(microphone, spoken)
    frames = collect(source, 100)
    elapsed_s = (time.monotonic_ns() - started_ns) / 1e9
    player.join()

    assert np.array_equal(np.concatenate([frame.pcm for frame in frames]), spoken)
    assert {len(frame.pcm) for frame in frames} == {FRAME_SAMPLES}
    assert [frame.position for frame in frames] == list(range(0, len(spoken), FRAME_SAMPLES))
    assert elapsed_s > 3.0
    captured = [frame.captured_ns for frame in frames]
    assert captured == sorted(captured)
    assert started_ns < captured[0]
    assert captured[-1] <= time.monotonic_ns()
    assert source.xruns == 0


def test_a_reader_that_pauses_loses_nothing(microphone: VirtualMicrophone, source: AlsaSource) -> None:
    """Two seconds in which nobody fetches frames cost no sample: the device is read all the same."""
    spoken = noise(3.2)
    player = playing(microphone, spoken)
    first = collect(source, 1)
    time.sleep(2.0)
    rest = collect(source, 99)
    player.join()
    assert np.array_equal(np.concatenate([frame.pcm for frame in first + rest]), spoken)


def test_a_device_that_hangs_counts_as_lost(source: AlsaSource) -> None:
    """No sound comes, and the read inside libasound does not return: after the limit this is an error."""
    with pytest.raises(DeviceStalled, match='"virtual_microphone"'):
        source.read()


def test_close_ends_a_read_that_hangs(source: AlsaSource) -> None:
    """`close` from another thread makes `read` return None, although libasound hangs."""
    results: list[AudioFrame | None] = []
    reader = threading.Thread(target=lambda: results.append(source.read()))
    reader.start()
    time.sleep(0.3)
    source.close()
    reader.join(60.0)
    assert results == [None]
    assert source.read() is None


def test_an_endless_source_is_noticed(microphone: VirtualMicrophone, source: AlsaSource) -> None:
    """When the writer has gone, the plug-in repeats stale samples for ever: that is an error, not sound."""
    playing(microphone, noise(0.5)).join()
    microphone.unplug()
    with pytest.raises(SourceError, match="faster than real time"):
        collect(source, 1_000_000)


def test_a_missing_microphone_is_named_with_those_that_exist(microphone: VirtualMicrophone) -> None:
    """One line: which device, why, and what could be chosen instead."""
    with pytest.raises(DeviceUnavailable) as caught:
        open_source(AlsaSettings(device="plughw:CARD=Absent"))
    message = str(caught.value)
    assert message.startswith('cannot open the microphone "plughw:CARD=Absent" (')
    assert microphone.device in message.partition("set source.device to ")[2]
    assert "\n" not in message


@pytest.mark.parametrize("prctl_mdwe", [False, True])
def test_libasound_itself_stays_silent(microphone: VirtualMicrophone, *, prctl_mdwe: bool) -> None:
    """Its own messages do not reach standard error, where one clear line is to stand.

    Under MemoryDenyWriteExecute= as well (PR_SET_MDWE, where the kernel has it).
    """
    script = (
        "import ctypes\n"
        f"if {prctl_mdwe}: ctypes.CDLL(None).prctl(65, 1, 0, 0, 0)\n"
        "from agent.audio.libasound import AlsaPcm\n"
        "from agent.errors import DeviceUnavailable\n"
        "try: AlsaPcm('plughw:CARD=Absent')\n"
        "except DeviceUnavailable: print('absent')\n"
    )
    environment = {**os.environ, **microphone.environment}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "absent\n"
    assert done.stderr == ""


def test_a_microphone_that_returns_is_used_again(microphone: VirtualMicrophone) -> None:
    """A stall is announced once, and ends what was being said; then frames follow, with the gap in their positions."""
    told: list[str] = []
    settings = AlsaSettings(device=microphone.device)
    source = Microphone(lambda: AlsaSource(settings, stall_s=1.5))
    source.on_change = lambda: told.append("absent" if source.trouble else "back")
    player = playing(microphone, noise(0.64))
    before = [frame for frame in (source.read() for _ in range(20)) if frame]
    player.join()
    player = threading.Timer(4.0, microphone.play, [noise(2.0)])
    player.start()
    meanwhile = source.read()
    after = source.read()
    source.close()
    player.join()

    assert len(before) == 20
    assert meanwhile is not None
    assert not meanwhile.pcm.any()
    assert after is not None
    assert after.pcm.any()
    assert told == ["absent", "back"]
    silence_s = (after.position - before[-1].end) / 16_000
    assert 3.0 < silence_s < 60.0


def test_devices_are_listed_with_the_line_for_the_settings(
    microphone: VirtualMicrophone, capsys: pytest.CaptureFixture[str]
) -> None:
    """What libasound knows is printed, the line for the TOML included."""
    assert CaptureDevice(microphone.device, "named in ALSA's configuration") in capture_devices()
    assert devices.run(Namespace(json=False)) == 0
    printed = capsys.readouterr().out
    assert microphone.device in printed
    assert '    device = "' in printed


def test_no_device_at_all_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts see exit 69, people see what to do."""
    if Path("/proc/asound/pcm").exists():
        pytest.skip("this machine has a sound card")
    empty = tmp_path / "asound.conf"
    empty.write_text("pcm.null { type null }\n", encoding="utf-8")
    monkeypatch.setenv("ALSA_CONFIG_PATH", str(empty))
    with pytest.raises(DeviceUnavailable, match="plug one in") as caught:
        devices.run(Namespace(json=False))
    assert caught.value.exit_code == 69


def tone(hz: float, seconds: float, rate_hz: int) -> Pcm16:
    """A sine of half the full scale."""
    return (16_000 * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate_hz)) / rate_hz)).astype(np.int16)


def test_the_hardwares_own_rate_is_taken_and_the_channel_that_was_chosen(microphone: VirtualMicrophone) -> None:
    """Of four channels at 48 kHz the third is heard, at 16 kHz, and nothing of what 16 kHz cannot hold."""
    microphone.hold(1 << 20)
    source = AlsaSource(AlsaSettings(device="array", channel=3))
    hums = [tone(hz, 2.0, 48_000) for hz in (300.0, 500.0, 700.0, 900.0)]
    hums[2] = hums[2] // 2 + tone(15_300.0, 2.0, 48_000) // 2  # folded, that would be 700 Hz as well
    player = threading.Thread(target=microphone.play, args=(np.column_stack(hums), 48_000))
    player.start()
    pcm = np.concatenate([frame.pcm for frame in collect(source, 50)])[-16_000:].astype(np.float64)
    player.join()
    source.close()
    spectrum = np.abs(np.fft.rfft(pcm * np.hanning(16_000)))  # bins of 1 Hz
    assert int(np.argmax(spectrum)) == 700
    assert max(spectrum[hz] for hz in (300, 500, 900)) < spectrum[700] / 1_000
    assert np.sqrt(np.mean(pcm**2)) == pytest.approx(8_000 / np.sqrt(2), rel=0.02)


def test_a_channel_that_is_not_there_is_refused(microphone: VirtualMicrophone) -> None:
    """Libasound would make one up out of the others; one line says that there is none."""
    del microphone
    with pytest.raises(SourceError, match="whether it has a channel 5"):
        AlsaSource(AlsaSettings(device="array", channel=5))


def test_a_format_that_we_do_not_understand_is_converted(microphone: VirtualMicrophone) -> None:
    """A device with nothing but floating point delivers all the same, at the pitch and level of what was played."""
    source = AlsaSource(AlsaSettings(device="floating"))
    player = playing(microphone, tone(500.0, 4.0, 16_000))
    pcm = np.concatenate([frame.pcm for frame in collect(source, 100)])
    player.join()
    source.close()
    # The plug-in gives stale samples where this machine was too busy to play in time: some second is as it was played.
    seconds = [pcm[first : first + 16_000] for first in range(0, len(pcm) - 16_000, 2_048)]
    assert any(is_tone(second, 500, 16_000 / np.sqrt(2)) for second in seconds)


def is_tone(pcm: Pcm16, hz: int, rms: float) -> bool:
    """Whether a second of sound is a tone of this pitch and level."""
    samples = pcm.astype(np.float64)
    pitch = int(np.argmax(np.abs(np.fft.rfft(samples * np.hanning(len(samples))))))
    return pitch == hz and abs(float(np.sqrt(np.mean(samples**2))) / rms - 1.0) < 0.3


class SlowEngine:
    """Says nothing, and takes its time; keeps the interpreter busy meanwhile, unlike a real engine."""

    batch_size = 1

    def __init__(self) -> None:
        self.transcribed = 0

    def transcribe(self, utterances: Sequence[Utterance]) -> list[Transcript]:
        """Two seconds of work in pure Python for each utterance."""
        until_s = time.monotonic() + 2.0
        while time.monotonic() < until_s:
            hash(utterances[0].pcm.tobytes())
        self.transcribed += 1
        return [Transcript(utterances[0].id, "", "en", (), "slow", "slow", 2.0, 0)]

    def close(self) -> None:
        """Nothing to free."""


class Nobody:
    """Is told what became of each utterance, and does nothing about it."""

    def recognised(self, utterance: Utterance, *_words: object, **_late: object) -> None:
        """There are no words."""

    def partial(self, utterance: Utterance, transcript: Transcript) -> None:
        """Nor are there any yet."""

    def failed(self, utterance: Utterance, error: EngineError) -> None:
        """Does not happen."""

    def dropped(self, utterance: Utterance) -> None:
        """Does not happen."""


class Taking:
    """A detector that keeps what it is played."""

    def __init__(self) -> None:
        self.heard: list[Pcm16] = []
        self.resets = 0
        self._inner = EnergyDetector()
        self.noise_floor_dbfs = None

    def probability(self, pcm: Pcm16) -> float:
        """Keep it, and ask a real one."""
        self.heard.append(pcm)
        return self._inner.probability(pcm)

    def reset(self) -> None:
        """Would mean that sound was lost."""
        self.resets += 1
        self._inner.reset()


def test_however_slow_the_engine_not_a_frame_is_lost(microphone: VirtualMicrophone, source: AlsaSource) -> None:
    """The whole way from libasound through all stages: what was spoken is what was listened to, sample for sample."""
    microphone.hold(1 << 20)  # what waits here while the machine is busy is not ours to lose
    quiet = silence(1.0)
    words = clip("en_pls-hold-while-try")[:16_000]
    spoken = np.concatenate([quiet, quiet, *(part for _ in range(4) for part in (words, quiet))])
    spoken = spoken[: len(spoken) // 2_560 * 2_560]  # whole frames, and whole chunks
    engine, detector, ids = SlowEngine(), Taking(), itertools.count()
    transcriber = Transcriber(engine, Nobody(), 16, Overflow.DROP_OLDEST)
    segmenter = Segmenter(SegmenterSettings(), 0.5, lambda: str(next(ids)))
    listener = Listener(source, detector, segmenter, [transcriber.heard], transcriber.close)
    stages = [threading.Thread(target=work) for work in (listener.run, transcriber.run)]
    for stage in stages:
        stage.start()
    microphone.play(spoken)
    assert eventually(lambda: len(detector.heard) == len(spoken) // 512)
    source.close()
    for stage in stages:
        stage.join()
    assert np.array_equal(np.concatenate(detector.heard), spoken)
    assert (source.xruns, detector.resets) == (0, 0)
    assert engine.transcribed >= 3
