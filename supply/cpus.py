"""Classes of CPUs: the instructions that whisper.cpp may use, and the features that a CPU must have for them."""

import os
from dataclasses import dataclass
from typing import Final

from agent.asr.cpu import features
from supply.errors import SupplyError

INDEX: Final = "index"
"""Not a class: the wheel of the package index, built for an unknown CPU. It takes seconds instead of minutes."""
NATIVE: Final = "native"


@dataclass(frozen=True, slots=True)
class CpuClass:
    """One way to build whisper.cpp."""

    name: str
    arch: str
    """As `uname -m` prints it."""
    march: str
    """The compiler's `-march`."""
    cmake: tuple[str, ...]
    """Options of ggml's build."""
    needs: frozenset[str]
    """Features that a CPU must have, by the names of /proc/cpuinfo: the compiler may use any of them anywhere."""
    boards: str


ARMV8_2: Final = frozenset({"asimd", "atomics", "crc32", "asimdrdm"})
"""The features of `-march=armv8.2-a` that the kernel lists."""
X86_64_V3: Final = frozenset({"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "sse4_2", "popcnt"})
"""Level 3 of the x86-64 psABI, without `abm` and `xsave`, which some hypervisors name differently."""
_NO_NATIVE: Final = "-DGGML_NATIVE=OFF"

CLASSES: Final = (
    CpuClass(
        "armv8-a",
        "aarch64",
        "armv8-a",
        (_NO_NATIVE, "-DGGML_CPU_ARM_ARCH=armv8-a"),
        frozenset({"asimd"}),
        "Raspberry Pi 3, 4, Zero 2 W; Jetson Nano, TX2; anything with 64 bits",
    ),
    CpuClass(
        "cortex-a76",
        "aarch64",
        "armv8.2-a+dotprod+fp16",
        (_NO_NATIVE, "-DGGML_CPU_ARM_ARCH=armv8.2-a+dotprod+fp16"),
        ARMV8_2 | {"asimddp", "asimdhp", "fphp"},
        "Raspberry Pi 5, 500; Jetson Orin; Rockchip RK3588",
    ),
    CpuClass(
        "x86-64-v3",
        "x86_64",
        "x86-64-v3",
        (_NO_NATIVE, *(f"-DGGML_{name}=ON" for name in ("SSE42", "AVX", "AVX2", "BMI2", "FMA", "F16C"))),
        X86_64_V3,
        "any PC from about 2015 on",
    ),
)

_WATCHED: Final = {
    "aarch64": ARMV8_2 | {"asimddp", "asimdhp", "fphp", "asimdfhm", "sve", "sve2", "i8mm", "bf16", "lrcpc", "sha3"},
    "x86_64": X86_64_V3
    | {f"avx512{part}" for part in ("f", "bw", "cd", "dq", "vl", "ifma", "vbmi", "_vbmi2", "_vnni", "_bf16", "_fp16")}
    | {"avx512_bitalg", "avx512_vpopcntdq", "avx_vnni", "gfni", "vaes", "vpclmulqdq", "sha_ni", "sse4a", "fma4", "xop"},
}
"""Features that `-march=native` may use. A device must have those of them that the building machine has."""


def native(arch: str, has: frozenset[str]) -> CpuClass:
    """Return the class of the CPU with the features `has`, on which the build runs."""
    return CpuClass(
        NATIVE, arch, NATIVE, ("-DGGML_NATIVE=ON",), _WATCHED[arch] & has, "this machine, and machines like it"
    )


def find(name: str, arch: str) -> CpuClass | None:
    """Return the class `name` of `arch`; None for the wheel of the package index.

    Raises:
        SupplyError: no such class.
    """
    if name == INDEX:
        return None
    here = os.uname().machine
    if name == NATIVE:
        if arch != here:
            raise SupplyError(f"CPU=native builds for this machine, which is {here}: run it on {arch}, or name a class")
        return native(arch, features())
    for known in CLASSES:
        if (known.name, known.arch) == (name, arch):
            return known
    names = ", ".join([*(known.name for known in CLASSES if known.arch == arch), NATIVE, INDEX])
    raise SupplyError(f"there is no CPU class {name!r} for {arch}: choose one of {names}")
