"""Compiles pywhispercpp for a CPU class.

pywhispercpp's own build script is not used: it compiles for the machine that it runs on, and its libraries would have
to be collected afterwards. Its steps are few, and are repeated here.
"""

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.asr.cpu import RECORD_NAME
from supply.commands import run, say
from supply.cpus import CpuClass
from supply.errors import SupplyError
from supply.index import unpack
from supply.target import Target
from supply.toolchain import Toolchain
from supply.wheel import write_wheel

_LIBRARIES: Final = "pywhispercpp.libs"
"""Folder beside the module for its libraries, as auditwheel names it."""
_WHISPER_OPTIONS: Final = (
    *("-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=OFF", "-DCMAKE_POSITION_INDEPENDENT_CODE=ON"),
    *("-DWHISPER_BUILD_TESTS=OFF", "-DWHISPER_BUILD_EXAMPLES=OFF", "-DWHISPER_BUILD_SERVER=OFF"),
    *("-DGGML_OPENMP=ON", "-DGGML_CCACHE=OFF"),
)
_ARCHIVES: Final = ("src/libwhisper.a", "ggml/src/libggml.a", "ggml/src/libggml-cpu.a", "ggml/src/libggml-base.a")
"""In the linker's order."""


@dataclass(frozen=True, slots=True)
class Job:
    """The inputs of a build."""

    target: Target
    cpu: CpuClass
    tools: Toolchain
    work: Path
    """Folder for intermediate files, and for wheels of earlier builds."""
    log: Path

    def environment(self, source: Path) -> dict[str, str]:
        """Return variables that keep this machine's time, folders and commit out of compiled files."""
        return {
            "SOURCE_DATE_EPOCH": str(epoch_s(source)),
            "GIT_CEILING_DIRECTORIES": str(source.parent),
            "ZERO_AR_DATE": "1",
            "LC_ALL": "C",
        }

    def flags(self, source: Path) -> list[str]:
        """Return compiler flags for a module that is the same on each building machine."""
        folders = (source, *self.tools.python_headers)
        return [
            "-O2",
            "-DNDEBUG",
            "-fPIC",
            *(f"-ffile-prefix-map={one}=." for one in folders),
            "-Wl,--build-id=none",
            "-s",
        ]


def whisper_wheel(job: Job, archive: Path) -> Path:
    """Compile pywhispercpp from its source `archive`, unless an earlier build did; return the wheel.

    Raises:
        SupplyError: a compiler failed, or the source has another layout.
    """
    ingredients = f"{job.cpu}{sorted(job.cpu.needs)}{job.target}{job.tools.version}"
    digest = hashlib.sha256(archive.read_bytes() + Path(__file__).read_bytes() + ingredients.encode()).hexdigest()
    kept = job.work / "built" / f"{job.target.folder}-{digest[:16]}"
    if not kept.exists():
        say(f"compiling whisper.cpp for {job.cpu.name} ({job.target.arch}): some minutes")
        fresh = kept.with_suffix(".new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        build_whisper(job, unpack(archive, job.work / f"build-{job.target.folder}"), fresh)
        fresh.rename(kept)
    (wheel,) = kept.glob("*.whl")
    return wheel


def epoch_s(source: Path) -> int:
    """Return the time of the release at `source`: the time stamp of all files in its wheel."""
    return int((source / "PKG-INFO").stat().st_mtime)


def build_whisper(job: Job, source: Path, out: Path) -> None:
    """Compile pywhispercpp's unpacked `source`, and write its wheel into the folder `out`."""
    cpu = job.cpu
    built = _whisper_libraries(job, source)
    module = source / f"_pywhispercpp{job.target.extension}"
    headers = (*job.tools.python_headers, source / "pybind11/include", source / "whisper.cpp/include")
    run(
        [
            *(job.tools.cxx, "-shared", "-std=c++17", "-fvisibility=hidden", f"-march={cpu.march}", *job.flags(source)),
            *(f"-I{folder}" for folder in (*headers, source / "whisper.cpp/ggml/include")),
            *("-o", module, source / "src/main.cpp", *(built / archive for archive in _ARCHIVES)),
            *("-fopenmp", "-pthread", "-ldl", "-lm", f"-Wl,-rpath,$ORIGIN/{_LIBRARIES}"),
        ],
        job.log,
        environment=job.environment(source),
    )
    metadata = (source / "PKG-INFO").read_text(encoding="utf-8")
    local = re.sub(r"[^a-z0-9]+", ".", cpu.name)
    metadata = re.sub(r"(?m)^Version: (.*)$", rf"Version: \1+{local}", metadata, count=1)
    files = {
        **_python_files(source, "pywhispercpp"),
        module.name: module.read_bytes(),
        f"{_LIBRARIES}/libgomp.so.1": job.tools.openmp.read_bytes(),
        f".dist-info/{RECORD_NAME}": _record(job, source),
        ".dist-info/top_level.txt": b"_pywhispercpp\npywhispercpp\n",
        ".dist-info/licenses/LICENSE": (source / "LICENSE").read_bytes(),
        ".dist-info/licenses/LICENSE.whisper.cpp": (source / "whisper.cpp/LICENSE").read_bytes(),
        ".dist-info/licenses/LICENSE.pybind11": (source / "pybind11/LICENSE").read_bytes(),
    }
    write_wheel(out, metadata, job.target.wheel_tag, files, epoch_s(source))


def _whisper_libraries(job: Job, source: Path) -> Path:
    """Build whisper.cpp and ggml as archives; return their folder."""
    built, prefix_map = source / "built", f"-ffile-prefix-map={source}=."
    environment = job.environment(source)
    configure = ["cmake", "-GNinja", "-S", source / "whisper.cpp", "-B", built, *_WHISPER_OPTIONS, *job.cpu.cmake]
    flags = (f"-DCMAKE_C_FLAGS={prefix_map}", f"-DCMAKE_CXX_FLAGS={prefix_map}")
    run([*configure, *job.tools.cmake, *flags], job.log, environment=environment)
    run(["cmake", "--build", built, "--parallel", str(os.cpu_count() or 1)], job.log, environment=environment)
    missing = [archive for archive in _ARCHIVES if not (built / archive).is_file()]
    if missing:
        raise SupplyError(f"whisper.cpp was built without {', '.join(missing)}: this release is laid out differently")
    return built


def _python_files(source: Path, package: str) -> dict[str, bytes]:
    """Return the Python part, without its examples, which need other packages."""
    found = (path for path in sorted((source / package).rglob("*")) if path.suffix in {".py", ".pyi", ".typed"})
    return {
        str(path.relative_to(source)): path.read_bytes()
        for path in [*found, source / package / "py.typed"]
        if path.is_file() and "examples" not in path.parts
    }


def _record(job: Job, source: Path) -> bytes:
    """Return the record that agent/asr/cpu.py reads before it imports the module, and the parts list shows."""
    pieces = {
        "whisper.cpp": _found(r"project\(\"whisper.cpp\" VERSION ([\d.]+)\)", source / "whisper.cpp/CMakeLists.txt"),
        "pybind11": _pybind_version(source / "pybind11/include/pybind11/detail/common.h"),
        "libgomp": job.tools.version,
    }
    said = {
        "cpu": job.cpu.name,
        "arch": job.cpu.arch,
        "needs": sorted(job.cpu.needs),
        "march": job.cpu.march,
        "ggml": [*_WHISPER_OPTIONS, *job.cpu.cmake],
        "compiler": job.tools.version,
        "contains": pieces,
    }
    return (json.dumps(said, indent=2) + "\n").encode()


def _pybind_version(header: Path) -> str:
    parts = (_found(rf"define PYBIND11_VERSION_{part} (\S+)", header) for part in ("MAJOR", "MINOR", "PATCH"))
    return ".".join(parts)


def _found(pattern: str, path: Path) -> str:
    found = re.search(pattern, path.read_text(encoding="utf-8"))
    if found is None:
        raise SupplyError(f"{path.name} of the source says no version: this release is laid out differently")
    return found[1]
