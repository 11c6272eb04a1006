"""The whole agent, timed from outside: real process, real broker, real time."""

import shutil

import pytest

from agent.audio.frames import SAMPLE_RATE_HZ
from agent.bench.clips import demo_clips, load_pcm
from agent.bench.latency import delays_of, quiet_room, run_agent, string_together
from agent.bench.ours import segment
from agent.bench.systems import parse_system

pytestmark = [
    pytest.mark.mosquitto,
    pytest.mark.skipif(
        shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin") is None, reason="mosquitto is missing"
    ),
]


def test_every_clip_arrives_once_and_no_earlier_than_it_can() -> None:
    """With an engine that takes 0.1 s, words are there after the hang-over."""
    clips = demo_clips()[:2]
    playlist = string_together([load_pcm(clip) for clip in clips])
    played = run_agent(parse_system("scripted:none:delay_s=0.1"), playlist.pcm, "en")
    found = list(delays_of(playlist, ["first", "second"], segment(playlist.pcm, {}), played.arrivals))
    assert [delay.clip for delay in found] == ["first", "second"]
    assert all(delay.after_hangover_s >= -0.01 for delay in found)
    assert all(delay.from_speech_end_s and delay.from_speech_end_s > 0.5 for delay in found)
    assert played.peak_pss_bytes > 20_000_000
    assert 0.1 < played.looks[-1].cpu_s < played.looks[-1].age_s


def test_an_agent_at_rest_is_seen_from_its_start_to_its_end() -> None:
    """CPU time only grows, and in a quiet room nothing is published."""
    played = run_agent(parse_system("scripted:none"), quiet_room(3 * SAMPLE_RATE_HZ), "en")
    cpu_s = [look.cpu_s for look in played.looks]
    assert cpu_s == sorted(cpu_s)
    assert played.looks[-1].age_s - played.looks[0].age_s > 2.0
    assert played.arrivals == ()
