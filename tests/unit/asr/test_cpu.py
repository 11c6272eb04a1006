import json
import os
import sys
from pathlib import Path

import pytest

from agent.asr.cpu import RECORD_NAME, BuiltFor, built_for, features, refusal

PI_5_CPUINFO = """\
processor	: 0
BogoMIPS	: 108.00
Features	: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer	: 0x41

processor	: 1
Features	: fp asimd
"""
A76 = BuiltFor("pywhispercpp 1.5.1+cortex.a76", "cortex-a76", "aarch64", frozenset({"asimd", "asimddp", "fphp"}))


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, record: str | None) -> None:
    """Put a package named `beside` where imports find it."""
    info = folder / "beside-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: beside\nVersion: 1.0\n", encoding="utf-8")
    if record is not None:
        (info / RECORD_NAME).write_text(record, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])


def test_features_are_those_of_the_first_core(tmp_path: Path) -> None:
    """ARM says `Features`, x86 says `flags`; no /proc/cpuinfo, no features."""
    assert features(tmp_path) == frozenset()
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text(PI_5_CPUINFO, encoding="utf-8")
    assert {"asimddp", "fphp", "asimdhp"} <= features(tmp_path)
    (tmp_path / "proc" / "cpuinfo").write_text("flags\t\t: fpu avx2 avx512_vnni\n", encoding="utf-8")
    assert features(tmp_path) == {"fpu", "avx2", "avx512_vnni"}


def test_this_machine_has_the_features_of_its_architecture() -> None:
    """Asked for real: every 64-bit CPU has vectors of 128 bits."""
    assert {"x86_64": "sse2", "aarch64": "asimd"}[os.uname().machine] in features()


def test_a_cpu_that_lacks_something_is_told_what_and_what_to_install() -> None:
    """One line: package, class, what is missing, where to install from."""
    assert refusal(A76, frozenset({"fp", "asimd"}), "aarch64") == (
        "pywhispercpp 1.5.1+cortex.a76 was built for cortex-a76 and needs asimddp, fphp, which this CPU lacks: "
        "install from wheelhouse/aarch64-armv8-a instead (docs/wheelhouse.md)"
    )


def test_a_cpu_that_has_everything_is_not_refused() -> None:
    """More than what is needed is no harm."""
    assert refusal(A76, A76.needs | {"sve"}, "aarch64") == ""


def test_another_architecture_is_refused() -> None:
    """A wheel for ARM on a PC is named as what it is, whatever the features are called."""
    assert "built for aarch64, and this machine is x86_64" in refusal(A76, frozenset({"avx2"}), "x86_64")


def test_nothing_is_refused_where_nothing_is_known() -> None:
    """The index's wheel does not say what it needs, and some kernels hide the CPU."""
    assert refusal(None, frozenset({"fp"}), "aarch64") == ""
    assert refusal(A76, frozenset(), "aarch64") == ""


def test_an_installed_record_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name, version and needs come from the package's own folder; nothing of it is imported."""
    install(tmp_path, monkeypatch, json.dumps({"cpu": "x", "arch": "y", "needs": ["a", "b"], "more": 1}))
    assert built_for("beside") == BuiltFor("beside 1.0", "x", "y", frozenset({"a", "b"}))


@pytest.mark.parametrize("record", [None, "", "not JSON", "[]", '{"cpu": "x"}'])
def test_a_package_without_a_sound_record_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: str | None
) -> None:
    """Absent, empty or damaged: as good as none, and no exception."""
    install(tmp_path, monkeypatch, record)
    assert built_for("beside") is None
    assert built_for("nobody-has-this") is None
