"""The manifest: well formed, complete, and refused when it is not."""

import tomllib
from pathlib import Path

import pytest

from agent.errors import ModelError
from agent.models import ModelFormat
from agent.models.catalogue import Catalogue, DerivedSource, HubSource, MirrorSource, load_catalogue
from tests.conftest import REPOSITORY

SIZES = ("tiny", "tiny.en", "base", "base.en", "small", "small.en")
OFFICIAL_BYTES = {
    "tiny-f16": 77_691_713,
    "tiny.en-q5_1": 32_166_155,
    "base-f16": 147_951_465,
    "base-q5_1": 59_707_625,
    "base-q8_0": 81_768_585,
    "small-q8_0": 264_464_607,
}
"""whisper.cpp's own files."""


def entry(**changes: object) -> dict[str, object]:
    """One sound entry of a manifest, with changes."""
    file = {"name": "m.bin", "size_bytes": 5, "sha256": "0" * 64}
    source = {"kind": "hub", "repository": "a/b", "revision": "0" * 40, "files": [file]}
    return {
        "name": "m",
        "format": "ggml",
        "size": "tiny",
        "languages": "en",
        "quantisation": "f16",
        "licence": "MIT",
        "sources": [source],
        **changes,
    }


def test_every_size_comes_in_every_form() -> None:
    """tiny, base and small, English and multilingual: six kinds of ggml file and a CTranslate2 folder of each."""
    catalogue = load_catalogue()
    for size in SIZES:
        for form in ("f16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "ct2"):
            model = catalogue.find(f"{size}-{form}")
            assert (model.format is ModelFormat.CTRANSLATE2) == (form == "ct2")
            assert (model.languages == "en") == size.endswith(".en")
            assert model.licence == "MIT"


def test_sizes_are_those_of_the_official_files() -> None:
    """A few of whisper.cpp's files, by their bytes; a derived file is as long as the official one."""
    catalogue = load_catalogue()
    for name, size_bytes in OFFICIAL_BYTES.items():
        sources = catalogue.find(name).sources
        assert {file.size_bytes for source in sources for file in source.files} == {size_bytes}
        assert [source.kind for source in sources] == ["hub", "derived"]


def test_everything_that_is_fetched_is_pinned() -> None:
    """Revisions and digests are fixed for the hub and the mirror; what is derived has a digest once one is known."""
    for model in load_catalogue().models:
        for source in model.sources:
            if isinstance(source, HubSource | MirrorSource):
                assert all(file.sha256 for file in source.files)
            if isinstance(source, DerivedSource):
                assert bool(source.input_sha256) == bool(source.files[0].sha256)


def test_a_name_nearly_right_is_corrected() -> None:
    """An unknown model names its neighbours and the command that lists all."""
    with pytest.raises(ModelError, match=r"unknown model tiny\.en-q4.*did you mean .*tiny\.en-q4_0.*models list"):
        load_catalogue().find("tiny.en-q4")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "gguf"}, "format"),
        ({"name": "../m"}, "name"),
        ({"sources": []}, "sources"),
        ({"unknown": 1}, "unknown"),
        ({"sources": [{"kind": "ftp"}]}, "ftp"),
        ({"sources": [{**entry()["sources"][0], "revision": "main"}]}, "revision"),  # type: ignore[index]
        (
            {"sources": [{**entry()["sources"][0], "files": [{"name": "m.bin", "size_bytes": 5}]}]},  # type: ignore[index]
            "sha256",
        ),
        (
            {
                "sources": [
                    {**entry()["sources"][0], "files": [{"name": "../m", "size_bytes": 5, "sha256": "0" * 64}]}  # type: ignore[index]
                ]
            },
            "name",
        ),
    ],
)
def test_a_malformed_entry_is_refused(changes: dict[str, object], words: str) -> None:
    """Unknown keys, unpinned files, paths that lead out of the store."""
    with pytest.raises(ValueError, match=words):
        Catalogue.model_validate({"version": 1, "model": [entry(**changes)]})


def test_a_manifest_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    """Absent, not TOML, or not a manifest: a ModelError with the file's name, on one line."""
    path = tmp_path / "manifest.toml"
    for content in (None, b"[[", b"\xff", b"version = 2\nmodel = []\n"):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ModelError, match=r"manifest\.toml") as caught:
            load_catalogue(path)
        assert "\n" not in str(caught.value)


def test_the_entries_fit_together() -> None:
    """A name means one model; a ggml model is one file; parts come from the listed wheels, derived models from CT2."""
    catalogue = load_catalogue()
    assert len({model.name for model in catalogue.models}) == len(catalogue.models)
    for model in catalogue.models:
        if model.format is ModelFormat.GGML:
            (names,) = {tuple(file.name for file in source.files) for source in model.sources}
            assert len(names) == 1
        for source in model.sources:
            if isinstance(source, MirrorSource):
                parts = {part.partition(":")[0] for file in source.files for part in file.parts}
                assert parts <= {package.name for package in source.packages}
            if isinstance(source, DerivedSource):
                assert model.format is ModelFormat.GGML
                assert catalogue.find(source.model).format is ModelFormat.CTRANSLATE2


def test_the_wheel_carries_the_manifest() -> None:
    """The build puts the manifest where an installed package looks for it."""
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included["models/manifest.toml"] == "agent/models/manifest.toml"


def test_a_manifest_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    """Windows editors put one in front."""
    path = tmp_path / "manifest.toml"
    shipped = (REPOSITORY / "models/manifest.toml").read_text(encoding="utf-8")
    path.write_text("\ufeff" + shipped, encoding="utf-8")
    assert load_catalogue(path) == load_catalogue()


def test_a_manifest_that_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    """As any other that is no TOML."""
    path = tmp_path / "manifest.toml"
    path.write_text("x = " + "[" * 100_000, encoding="utf-8")
    with pytest.raises(ModelError, match="not valid TOML"):
        load_catalogue(path)
