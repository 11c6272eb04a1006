import os
import subprocess
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from agent.audio import FRAME_SAMPLES, AudioFrame, Pcm16
from agent.commands import devices
from agent.config import AlsaSettings
from agent.errors import DeviceUnavailable, SourceError
from agent.sources.alsa import AlsaSource
from agent.sources.alsa_pcm import CaptureDevice, capture_devices
from agent.sources.factory import create_source
from agent.sources.reconnecting import MicrophoneEvents, ReconnectingSource
from tests.integration.virtual_microphone import VirtualMicrophone

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
    """What the microphone hears comes out sample for sample, in frames of 512, as fast as it was spoken."""
    spoken = noise(3.2)
    started_ns = time.monotonic_ns()
    player = playing(microphone, spoken)
    frames = collect(source, 100)
    elapsed_s = (time.monotonic_ns() - started_ns) / 1e9
    player.join()

    assert np.array_equal(np.concatenate([frame.pcm for frame in frames]), spoken)
    assert {len(frame.pcm) for frame in frames} == {FRAME_SAMPLES}
    assert [frame.position for frame in frames] == list(range(0, len(spoken), FRAME_SAMPLES))
    assert 3.0 < elapsed_s < 6.0
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
    """Nothing comes, and the read inside libasound does not return: after the limit that is said."""
    with pytest.raises(DeviceUnavailable, match='"virtual_microphone" has delivered nothing for 1 s'):
        source.read()


def test_close_ends_a_read_that_hangs(source: AlsaSource) -> None:
    """`close` from another thread makes `read` return None within a second, although libasound hangs."""
    results: list[AudioFrame | None] = []
    reader = threading.Thread(target=lambda: results.append(source.read()))
    reader.start()
    time.sleep(0.3)
    source.close()
    reader.join(1.0)
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
        create_source(AlsaSettings(device="plughw:CARD=Absent"))
    message = str(caught.value)
    assert message.startswith('cannot open the microphone "plughw:CARD=Absent" (')
    assert microphone.device in message.partition("set source.device to ")[2]
    assert "\n" not in message


@pytest.mark.parametrize("prctl_mdwe", [False, True])
def test_libasound_itself_stays_silent(microphone: VirtualMicrophone, *, prctl_mdwe: bool) -> None:
    """Its own messages do not reach standard error, where one clear line is to stand.

    Under MemoryDenyWriteExecute= as well (PR_SET_MDWE, where the kernel has it), in which the callback that does this
    may be refused, but capturing may not.
    """
    script = (
        "import ctypes\n"
        f"if {prctl_mdwe}: ctypes.CDLL(None).prctl(65, 1, 0, 0, 0)\n"
        "from agent.sources.alsa_pcm import AlsaPcm\n"
        "from agent.errors import DeviceUnavailable\n"
        "try: AlsaPcm('plughw:CARD=Absent')\n"
        "except DeviceUnavailable: print('absent')\n"
    )
    environment = {**os.environ, **microphone.environment}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "absent\n"
    assert prctl_mdwe or done.stderr == ""


def test_a_microphone_that_returns_is_used_again(microphone: VirtualMicrophone) -> None:
    """A stall is announced once; when sound comes again, frames follow, with the gap in their positions."""
    told: list[str] = []
    events = MicrophoneEvents(absent=lambda _: told.append("absent"), back=lambda: told.append("back"))
    settings = AlsaSettings(device=microphone.device)
    source = ReconnectingSource(lambda: AlsaSource(settings, stall_s=0.5), wait_at_start=False, events=events)
    player = playing(microphone, noise(0.64))
    before = [frame for frame in (source.read() for _ in range(20)) if frame]
    player.join()
    player = threading.Timer(2.0, microphone.play, [noise(2.0)])
    player.start()
    after = source.read()
    source.close()
    player.join()

    assert len(before) == 20
    assert after is not None
    assert told == ["absent", "back"]
    silence_s = (after.position - before[-1].end) / 16_000
    assert 1.5 < silence_s < 5.0


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
