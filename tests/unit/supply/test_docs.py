import re

from supply.docs import CATALOGUE, PAGE, page
from supply.house import LOCKS
from supply.locks import needed, read_lock
from supply.target import PYTHONS, Target


def test_the_page_of_licences_lists_what_is_locked() -> None:
    """Whoever pins another version makes the page anew (`make lock`); no licence is unknown."""
    text = PAGE.read_text(encoding="utf-8")
    rows = {(name, version) for name, version in re.findall(r"(?m)^\| ([\w-]+) \| ([^ ]+) \| .* \| .* \|$", text)}
    locked = needed(read_lock(LOCKS["faster-whisper"]), Target("x86_64", "index", PYTHONS[0]))
    assert {(one.name, one.version) for one in locked} <= rows
    assert "unknown" not in text


def test_the_page_of_licences_lists_every_model_of_the_catalogue() -> None:
    """With its terms; the part about models is the one that would be made now."""
    catalogue = CATALOGUE.read_text(encoding="utf-8")
    models = page([], catalogue).partition("## Models")[2]
    assert PAGE.read_text(encoding="utf-8").endswith(models)
    assert models.count("| MIT |") == len(re.findall(r"(?m)^\[\[model\]\]", catalogue))
