import json
import subprocess
import sys
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from agent.asr.cpu import RECORD_NAME
from supply.licences import licence, licence_list
from supply.sbom import parts_list
from supply.target import Target, running_python
from supply.wheel import Wheel, read_wheel, write_wheel

TARGET = Target("aarch64", "cortex-a76", "3.11")
METADATA = """\
Metadata-Version: 2.4
Name: some-thing
Version: 1.5+cortex.a76
License: MIT
Project-URL: Source, https://example.org/thing
Requires-Dist: edgescribe
Requires-Dist: pyqt5; extra == "gui"
"""
AGENT = "Metadata-Version: 2.4\nName: edgescribe\nVersion: 0.1\nLicense-Expression: Apache-2.0\n"
RECORD = json.dumps({"cpu": "cortex-a76", "contains": {"whisper.cpp": "1.8.5", "libgomp": "gcc 12"}}).encode()
FILES = {"thing/__init__.py": b"x = 1\n", "thing.so": b"\x7fELF", f".dist-info/{RECORD_NAME}": RECORD}
EPOCH_S = 1_700_000_000


def wheels(folder: Path) -> list[Wheel]:
    """Two of them."""
    folder.mkdir(exist_ok=True)
    thing = write_wheel(folder, METADATA, "py3-none-any", FILES, EPOCH_S)
    agent = write_wheel(folder, AGENT, "py3-none-any", {}, EPOCH_S)
    return [read_wheel(agent), read_wheel(thing)]


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    """Whoever builds again can compare digests."""
    first, again = ([wheel.sha256 for wheel in wheels(tmp_path / name)] for name in ("a", "b"))
    assert first == again


def test_a_wheel_says_what_was_put_in(tmp_path: Path) -> None:
    """Name, version, licence, origin, needs (without those of extras), and what is inside."""
    agent, thing = wheels(tmp_path)
    assert (thing.name, thing.version, thing.home) == ("some-thing", "1.5+cortex.a76", "https://example.org/thing")
    assert thing.requires == ("edgescribe",)
    assert thing.contains == {"whisper.cpp": "1.8.5", "libgomp": "gcc 12"}
    assert (licence(thing), licence(agent)) == ("MIT", "Apache-2.0")
    assert thing.path.name == "some_thing-1.5+cortex.a76-py3-none-any.whl"


def test_pip_installs_a_written_wheel_by_its_hash_and_reads_the_record_back(tmp_path: Path) -> None:
    """It checks RECORD, and the record of the CPU lands where agent/asr/cpu.py looks for it."""
    lines = [wheel.requirement() for wheel in wheels(tmp_path / "wheels")]
    (tmp_path / "requirements.txt").write_text("\n".join(lines), encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-index", "--require-hashes"]
    where: list[str | Path] = [
        "--find-links",
        tmp_path / "wheels",
        "--target",
        tmp_path / "site",
        "-r",
        tmp_path / "requirements.txt",
    ]
    subprocess.run([*pip, *where], check=True, capture_output=True, env={"PATH": "/usr/bin:/bin"})
    assert (tmp_path / "site/some_thing-1.5+cortex.a76.dist-info" / RECORD_NAME).read_bytes() == RECORD
    assert (tmp_path / "site/thing/__init__.py").read_bytes() == b"x = 1\n"


def test_the_parts_list_is_valid_cyclonedx_and_always_the_same(tmp_path: Path) -> None:
    """Held against the published schema, strictly; same wheels, same text."""
    text = parts_list(wheels(tmp_path), TARGET, EPOCH_S)
    assert JsonStrictValidator(SchemaVersion.V1_5).validate_str(text) is None
    assert text == parts_list(wheels(tmp_path), TARGET, EPOCH_S)


def test_the_parts_list_names_every_part_and_its_insides(tmp_path: Path) -> None:
    """Package URL, digest, licence, dependencies; and the C++ inside, in which holes are found, too."""
    agent, thing = wheels(tmp_path)
    document = json.loads(parts_list([agent, thing], TARGET, EPOCH_S))
    assert document["metadata"]["component"]["purl"] == "pkg:pypi/edgescribe@0.1"
    (part,) = document["components"]
    assert part["purl"] == "pkg:pypi/some-thing@1.5%2Bcortex.a76"
    assert part["hashes"] == [{"alg": "SHA-256", "content": thing.sha256}]
    assert [(one["name"], one["version"]) for one in part["components"]] == [
        ("whisper.cpp", "1.8.5"),
        ("libgomp", "gcc 12"),
    ]
    assert {"ref": part["purl"], "dependsOn": ["pkg:pypi/edgescribe@0.1"]} in document["dependencies"]


def test_licences_are_listed_and_a_missing_one_is_said(tmp_path: Path) -> None:
    """A package without a licence is `unknown`, and not left out."""
    bare = write_wheel(tmp_path, "Metadata-Version: 2.1\nName: bare\nVersion: 1\n", "py3-none-any", {}, EPOCH_S)
    page = licence_list([*wheels(tmp_path), read_wheel(bare)])
    assert "| some-thing | 1.5+cortex.a76 | MIT | https://example.org/thing |" in page
    assert "| bare | 1 | unknown |  |" in page


def test_the_tag_of_native_wheels_is_the_interpreters() -> None:
    """So that pip does not install one for another Python."""
    assert TARGET.wheel_tag == "cp311-cp311-linux_aarch64"
    assert Target("x86_64", "native", running_python()).wheel_tag.endswith("-linux_x86_64")
