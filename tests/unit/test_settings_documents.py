import re
import tomllib
from pathlib import Path

import pytest

from agent.config.schema import all_paths, by_path
from agent.config.settings import Settings
from docs.settings_documents import EXAMPLE, MQTT_PAGE, SETTINGS_PAGE, example, mqtt_page, settings_page

DOCS = Path(__file__).parents[2] / "docs"


def test_the_documents_are_current() -> None:
    """`python -m docs.settings_documents` would change nothing."""
    assert (DOCS / SETTINGS_PAGE).read_text(encoding="utf-8") == settings_page()
    assert (DOCS / EXAMPLE).read_text(encoding="utf-8") == example()
    mqtt = (DOCS / MQTT_PAGE).read_text(encoding="utf-8")
    assert mqtt == mqtt_page(mqtt)
    assert mqtt_page(mqtt.replace("| `engine.language` |", "| `engine` |")) == mqtt


@pytest.mark.parametrize(
    ("variable", "when"),
    [
        ("EDGESCRIBE_VAD__THRESHOLD", "at once"),
        ("EDGESCRIBE_ENGINE__THREADS", "reload"),
        ("EDGESCRIBE_LOG__LEVEL", "reload"),
        ("EDGESCRIBE_MQTT__HOST", "restart"),
    ],
)
def test_the_page_says_when_a_setting_takes_effect(variable: str, when: str) -> None:
    """In the fourth column of its row."""
    (row, *_) = (line for line in settings_page().splitlines() if f"`{variable}`" in line)
    assert row.split(" | ")[3] == when


def test_every_setting_is_described() -> None:
    """No setting without a sentence; `kind` of a section with kinds is described by the kinds themselves."""
    bare = {
        setting.key
        for path in all_paths()
        for setting in by_path(path)
        if not setting.description and not (path[-1] == "kind" and setting.kind)
    }
    assert bare == set()


def test_every_setting_is_on_the_page_with_its_variable() -> None:
    """The page names each key and each environment variable."""
    page = settings_page()
    for path in all_paths():
        assert f"`{path[-1]}`<br>" in page
        assert f"`EDGESCRIBE_{'__'.join(path).upper()}`" in page


def test_the_example_changes_nothing_as_it_stands() -> None:
    """Copied to /etc unedited, it means the defaults."""
    assert Settings.model_validate(_with_kinds(tomllib.loads(example()))) == Settings()


def test_the_example_with_its_comments_removed_is_the_defaults_too() -> None:
    """Each `# key = value` of the default kinds is valid TOML and states the true default."""
    default_kinds_only = re.sub(r"\n# \[.*?(?=\n\[|\Z)", "\n", example(), flags=re.DOTALL)
    uncommented = re.sub(r"^# (?=\w+ = (?!…))", "", default_kinds_only, flags=re.MULTILINE)
    tree = tomllib.loads(uncommented)
    assert tree["engine"]["threads"] == 0
    assert Settings.model_validate(tree) == Settings()


def _with_kinds(tree: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """What loading does before it validates: name the default kinds."""
    tree["engine"]["kind"] = "whisper_cpp"
    tree["source"]["kind"] = "alsa"
    return tree
