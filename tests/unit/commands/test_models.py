"""What people see of models."""

import json
import os
from pathlib import Path

import pytest

from agent import cli
from agent.config import layers
from agent.models import catalogue
from agent.models.ggml import write_ggml
from tests.model_files import usable_weights, write_ctranslate2
from tests.model_packages import World, make_world
from tests.unprivileged import closed


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Small models, a store of their own, no hub, and a pip that sees only the wheels made for them."""
    for name in [name for name in os.environ if name.startswith("EDGESCRIBE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(layers, "DEFAULT_FILE", tmp_path / "etc" / "config.toml")
    monkeypatch.setenv("EDGESCRIBE_MODELS__DIR", str(tmp_path / "store"))
    monkeypatch.setenv("EDGESCRIBE_MODELS__HUB_URL", "http://127.0.0.1:1")
    made = make_world(tmp_path)
    manifest = tmp_path / "manifest.toml"
    manifest.write_text(as_toml(made))
    monkeypatch.setattr(catalogue, "_manifest_path", lambda: manifest)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(made.wheels))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return made


def as_toml(world: World) -> str:
    """The manifest as a file; JSON's inline tables become TOML's."""

    def inline(value: object) -> str:
        if isinstance(value, dict):
            return "{ " + ", ".join(f"{key} = {inline(item)}" for key, item in value.items()) + " }"
        if isinstance(value, list):
            return "[" + ", ".join(inline(item) for item in value) + "]"
        return json.dumps(value)

    return "\n".join(f"{key} = {inline(value)}" for key, value in world.manifest.items())


def edgescribe(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run the command line; status, output, errors."""
    capsys.readouterr()
    status = cli.main(["models", *arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.usefixtures("world")
def test_a_model_is_pulled_listed_verified_and_removed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The whole life of a model, in plain lines where nobody looks."""
    status, out, err = edgescribe(capsys, "pull", "mini-q4_0")
    assert (status, out) == (0, f"mini-q4_0: {tmp_path}/store/mini-q4_0/ggml-mini-q4_0.bin\n")
    assert "making mini-q4_0 from mini-ct2" in err
    assert "100 % of" in err

    _, out, _ = edgescribe(capsys, "list", "--json")
    assert [(row["name"], row["installed"]) for row in json.loads(out)] == [
        ("mini-ct2", False),
        ("mini-q4_0", True),
        ("mini-q8_0", False),
    ]
    _, out, _ = edgescribe(capsys, "list")
    heads, *rows = (line.split() for line in out.splitlines())
    assert heads[0] == "name"
    assert [(row[0], row[-1]) for row in rows] == [("mini-ct2", "-"), ("mini-q4_0", "here"), ("mini-q8_0", "-")]

    assert edgescribe(capsys, "verify") == (0, "mini-q4_0: sound\n", "")
    assert edgescribe(capsys, "remove", "mini-q4_0") == (0, "mini-q4_0: removed\n", "")
    assert edgescribe(capsys, "verify") == (0, "no models on this device\n", "")


@pytest.mark.usefixtures("world")
def test_verify_names_every_bad_model_and_fails(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """One line a model; 78 if any is bad, even where another is sound."""
    edgescribe(capsys, "pull", "mini-q4_0", "mini-q8_0")
    file = tmp_path / "store" / "mini-q4_0" / "ggml-mini-q4_0.bin"
    file.write_bytes(file.read_bytes()[:-1] + b"\xaa")
    status, out, err = edgescribe(capsys, "verify")
    assert (status, out) == (78, "mini-q8_0: sound\n")
    assert err.startswith("edgescribe: model mini-q4_0: ggml-mini-q4_0.bin: digest is ")
    assert err.count("\n") == 1


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("pull", "mini-q4_1"), "unknown model mini-q4_1: did you mean"),
        (("pull", "mini-q4_0", "nonsense"), "unknown model nonsense"),
        (("verify", "mini-ct2"), "not on this device: run `edgescribe models pull mini-ct2`"),
        (("remove", "mini-ct2"), "not on this device"),
        (("pull", "mini-ct2", "--set", "models.mirror=false"), "does not answer"),
        (("convert", "/nowhere", "/nowhere/x.bin"), "holds neither"),
        (("quantise", "/nowhere.bin", "/nowhere/x.bin", "--type", "q4_0"), "cannot be read"),
        (("trust", "/nowhere.bin"), "no such model"),
    ],
)
def test_what_goes_wrong_is_one_line_and_78(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    """No trace, the reason, the exit code that tells systemd not to try again."""
    status, _, err = edgescribe(capsys, *arguments)
    assert status == 78
    last = err.splitlines()[-1]
    assert last.startswith("edgescribe: ")
    assert words in last
    assert "Traceback" not in err


@pytest.mark.usefixtures("world")
def test_a_misspelt_name_is_said_before_anything_is_fetched(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The good name in front of the bad one is not pulled either."""
    edgescribe(capsys, "pull", "mini-q4_0", "nonsense")
    assert not (tmp_path / "store").exists()


@pytest.mark.usefixtures("world")
def test_own_models_are_converted_quantised_and_trusted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """From a folder to a small file, in one step or in two, with what came out; then the digest is remembered."""
    source = str(write_ctranslate2(tmp_path / "own", usable_weights()))
    one, f16, two = (str(tmp_path / name) for name in ("one.bin", "f16.bin", "two.bin"))
    status, out, _ = edgescribe(capsys, "convert", source, one, "--type", "q5_0")
    assert status == 0
    assert out.startswith(f"{one}: q5_0, 1 + 1 layers of 64, ")
    edgescribe(capsys, "convert", source, f16)
    assert edgescribe(capsys, "quantise", f16, two, "--type", "q5_0")[0] == 0
    assert Path(one).read_bytes() == Path(two).read_bytes()
    status, out, _ = edgescribe(capsys, "trust", one)
    assert status == 0
    assert out.startswith(f"{one}: sha256 ")
    write_ggml(usable_weights(seed=3), Path(one))
    assert edgescribe(capsys, "trust", one)[1] != out


def test_a_store_that_this_user_may_not_see_is_said_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of a service is to who logs in: it lies below a folder of root's."""
    monkeypatch.setattr(layers, "DEFAULT_FILE", Path("/nonexistent/config.toml"))
    monkeypatch.setenv("EDGESCRIBE_MODELS__DIR", str(tmp_path))
    with closed(tmp_path):
        status, out, said = edgescribe(capsys, "list")
    assert (status, out, said.count("\n")) == (78, "", 1)
    assert said.startswith(f"edgescribe: {tmp_path}/")
    assert "cannot be read by this user: check owner and mode" in said
