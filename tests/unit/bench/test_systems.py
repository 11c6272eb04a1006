from pathlib import Path

import pytest

from agent.bench.child import Adapter
from agent.bench.clips import Clip
from agent.bench.systems import are_peers, distinct, parse_system, peers_of, takes, with_threads
from agent.errors import ConfigError
from agent.models import ModelFormat


def clip(language: str) -> Clip:
    """A clip in that language."""
    return Clip("set", "id", Path("x.flac"), language, "text", 1.0)


def test_a_system_is_engine_model_and_options() -> None:
    """Options are separated by commas; a bare one is switched on."""
    system = parse_system("whisper_cpp:base-q8_0:vad,threads=2")
    assert (system.adapter, system.model) == (Adapter.WHISPER_CPP, "base-q8_0")
    assert system.options == {"vad": "true", "threads": "2"}


def test_a_path_is_named_by_its_last_part() -> None:
    """Results do not carry the folders of the machine on which they were made."""
    assert parse_system("stock-faster-whisper:/a/b/tiny-ct2:beam=1").name == "stock-faster-whisper:tiny-ct2:beam=1"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("vosk:small", "not an engine"),
        ("whisper_cpp", "name a model"),
        ("stock-faster-whisper:tiny-ct2:beams=5", "no option beams"),
    ],
)
def test_mistakes_are_named(text: str, complaint: str) -> None:
    """Each says what is wrong, and what there is."""
    with pytest.raises(ConfigError, match=complaint):
        parse_system(text)


def test_a_common_number_of_threads_yields_to_an_own_one() -> None:
    """`--threads` is for all systems that do not say how many themselves."""
    assert with_threads(parse_system("whisper_cpp:m"), 3).options["threads"] == "3"
    assert with_threads(parse_system("whisper_cpp:m:threads=1"), 3).options["threads"] == "1"


def test_an_english_model_is_not_asked_for_german() -> None:
    """It would be scored on words that it cannot know; noise, on the other hand, is for everybody."""
    english, multilingual = parse_system("whisper_cpp:tiny.en-q8_0"), parse_system("whisper_cpp:tiny-q8_0")
    assert not takes(english, clip("de"))
    assert all(takes(system, clip(language)) for system in (english, multilingual) for language in ("en", "none"))
    assert takes(multilingual, clip("de"))
    assert takes(parse_system("whisper_cpp:/home/jo.en/ggml-base.bin"), clip("de"))
    assert not takes(parse_system("whisper_cpp:/home/jo/ggml-base.en.bin"), clip("de"))


@pytest.mark.parametrize("model_format", list(ModelFormat))
def test_every_peer_takes_the_format_it_is_offered(model_format: ModelFormat) -> None:
    """Peers are run on the very weights of the model they are compared with."""
    peers = peers_of("some-model", model_format)
    assert peers
    assert all(
        peer.adapter.model_format is model_format and are_peers("whisper_cpp:some-model", peer.name) for peer in peers
    )


def test_two_models_of_one_name_are_refused() -> None:
    """Their results could not be told apart; the same one twice is no harm."""
    one, other = parse_system("whisper_cpp:/a/model.bin"), parse_system("whisper_cpp:/b/model.bin")
    assert distinct([one, one]) == [one]
    with pytest.raises(ConfigError, match=r"/a/model\.bin and /b/model\.bin .* whisper_cpp:model"):
        distinct([one, other])
