"""Choose the models to measure on this machine, the numbers of threads, and the memory for them."""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

import psutil

from agent.messages import identity
from agent.models import ModelFormat
from agent.models.catalogue import Catalogue, Model, memory_need_mb
from agent.models.choice import LIKELIEST, engine_for, size_rank

USABLE: Final = 0.75
"""Share of the available memory. Other programs may need the rest later."""
REST_OF_AGENT_MB: Final = 60
"""The agent without its engine: capture, voice activity, MQTT."""
_ROOM: Final = 1.3
"""Do not load a model that needs more than the memory budget times this factor."""


def objection(model: Model, engines: Collection[str], memory_mb: int) -> str:
    """Return the reason not to measure `model`; empty if there is none."""
    engine = engine_for(model)
    need_mb = memory_need_mb(model.size, model.size_bytes, ctranslate2=model.format is ModelFormat.CTRANSLATE2)
    if engine not in engines:
        return f"{engine} is not installed"
    if need_mb > _ROOM * memory_mb:
        return f"it needs about {need_mb} MB, but the engine may use only {memory_mb} MB"
    return ""


def cost(model: Model) -> tuple[int, float, str]:
    """Return the sort key: small before large; CTranslate2 just behind the likeliest quantisation."""
    form = 0.5 if model.format is ModelFormat.CTRANSLATE2 else LIKELIEST.index(model.quantisation)
    return size_rank(model.size), form, model.name


def smaller_in_vain(model: Model, too_slow: Iterable[Model]) -> Model | None:
    """Return a smaller model of the same engine that was `too_slow`; None if there is none."""
    rank = size_rank(model.size)
    return next((one for one in too_slow if one.format is model.format and size_rank(one.size) < rank), None)


def thread_numbers(cores: int, setting: int = 0) -> list[int]:
    """Return the numbers of threads to try, the largest first.

    A `setting` is the only number. Otherwise try `cores` - 1 and the powers of two below it; the noise hides the
    difference to numbers between them.
    """
    if setting:
        return [setting]
    most = max(1, cores - 1)
    return sorted({most} | {number for number in (1, 2, 4, 8) if number < most}, reverse=True)


def worth_pulling(catalogue: Catalogue, engines: Collection[str], language: str, memory_mb: int) -> list[list[str]]:
    """Return lists of names; fetch one model of each list, the first one if possible.

    They are tiny and base, in the quantisation in which each engine is fastest. For English, the English-only model
    is first. A device that cannot reach the hub may get only the second one, which knows all languages.
    """
    suffixes = (".en", "") if language == "en" else ("",)
    wanted = [
        [f"{size}{suffix}-{form}" for suffix in suffixes] for size in ("tiny", "base") for form in ("q8_0", "ct2")
    ]
    return [names for names in wanted if not objection(catalogue.find(names[0]), engines, memory_mb)]


def memory_budget_mb(root: Path = identity.ROOT) -> int:
    """Return the memory for an engine: a share of what this process can get, less the rest of the agent."""
    available_bytes, headroom_bytes = psutil.virtual_memory().available, cgroup_headroom_bytes(root)
    if headroom_bytes is not None:
        available_bytes = min(available_bytes, headroom_bytes)
    return max(0, int(USABLE * available_bytes) // 1_000_000 - REST_OF_AGENT_MB)


def cgroup_headroom_bytes(root: Path = identity.ROOT) -> int | None:
    """Return the memory that the limits of cgroup v2 leave to this process; None if there is no limit.

    File pages without recent use (`inactive_file`) count as free, because the kernel gives them up first.
    """
    top, rooms = root / "sys/fs/cgroup", list[int]()
    # In a container, this path may not exist, because it belongs to the host. Then the root group has the limit.
    group = top / (_text(root / "proc/self/cgroup").rpartition("0::/")[2]).strip()
    for folder in (group, *group.parents):
        limit, used = _text(folder / "memory.max").strip(), _text(folder / "memory.current").strip()
        if folder.is_relative_to(top) and limit.isdecimal() and used.isdecimal():
            lines = (line.split() for line in _text(folder / "memory.stat").splitlines())
            idle_bytes = next((int(words[1]) for words in lines if words[0] == "inactive_file"), 0)
            rooms.append(max(0, int(limit) - int(used) + idle_bytes))
    return min(rooms, default=None)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
