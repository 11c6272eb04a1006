import os
import sys
from importlib.machinery import EXTENSION_SUFFIXES

import pytest
from packaging.markers import default_environment

from supply.cpus import CLASSES, INDEX, find, native
from supply.errors import SupplyError
from supply.target import Target, running_python, target


def test_folders_are_named_after_architecture_and_class() -> None:
    """Others install from there by name; another Python, another folder."""
    assert Target("aarch64", "cortex-a76", "3.11").folder == "aarch64-cortex-a76"
    assert Target("aarch64", "armv8-a", "3.13").folder == "aarch64-armv8-a-py3.13"


def test_a_target_like_this_machine_has_this_interpreters_names() -> None:
    """What we say about a foreign interpreter, held against the one that runs here."""
    here = target(os.uname().machine, "native", running_python())
    assert here.is_here
    assert here.tag == f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert here.extension == EXTENSION_SUFFIXES[0]
    real = default_environment()
    ours = here.environment
    for name in (
        "implementation_name",
        "os_name",
        "platform_machine",
        "platform_system",
        "python_version",
        "sys_platform",
    ):
        assert ours[name] == real[name], name


def test_no_wheel_is_taken_that_wants_a_newer_glibc_than_the_oldest_device_has() -> None:
    """JetPack 6 is Ubuntu 22.04, with glibc 2.35."""
    platforms = Target("aarch64", "armv8-a", "3.11").platforms
    assert "manylinux_2_35_aarch64" in platforms
    assert "manylinux_2_36_aarch64" not in platforms


def test_the_classes_say_what_the_compiler_may_use() -> None:
    """Dot product and fp16 arithmetic are asked for and needed by cortex-a76, and by armv8-a neither."""
    plain, a76 = find("armv8-a", "aarch64"), find("cortex-a76", "aarch64")
    assert plain is not None
    assert a76 is not None
    assert plain.needs == {"asimd"}
    assert {"asimddp", "asimdhp", "fphp", "atomics"} <= a76.needs
    assert "-DGGML_CPU_ARM_ARCH=armv8.2-a+dotprod+fp16" in a76.cmake
    assert all("-DGGML_NATIVE=OFF" in one.cmake for one in CLASSES)


def test_native_needs_what_this_cpu_has_of_what_compilers_use() -> None:
    """Unknown names do not become needs: hypervisors invent some."""
    found = native("x86_64", frozenset({"avx2", "avx512f", "hypervisor", "constant_tsc"}))
    assert found.needs == {"avx2", "avx512f"}


def test_what_cannot_be_built_is_refused_with_what_can() -> None:
    """An unknown class, and a native build for a machine that this is not."""
    assert find(INDEX, "aarch64") is None
    with pytest.raises(SupplyError, match="choose one of armv8-a, cortex-a76, native, index"):
        find("cortex-a1", "aarch64")
    foreign = "aarch64" if os.uname().machine == "x86_64" else "x86_64"
    with pytest.raises(SupplyError, match="builds for this machine"):
        find("native", foreign)
    with pytest.raises(SupplyError, match="no architecture 'vax'"):
        target("vax", "armv8-a", "3.11")
    with pytest.raises(SupplyError, match="no version of Python"):
        target("aarch64", "armv8-a", "three")
