import json
import tomllib
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from jinja2.nativetypes import NativeEnvironment

from agent.config.schema import all_paths, by_path
from docs.ansible_role import DEFAULTS, INDEX, ROLE, SPECS, default, variable, write
from supply.house import LOCKS, Order
from supply.target import PYTHONS, target


def read(name: str | Path) -> Any:
    """A YAML file of the role."""
    return yaml.safe_load((ROLE / name).read_text(encoding="utf-8"))


def test_the_role_is_up_to_date(tmp_path: Path) -> None:
    """What is generated from the settings is what `python -m docs.settings_documents` writes."""
    for name in (DEFAULTS, INDEX, SPECS):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((ROLE / name).read_text(encoding="utf-8"), encoding="utf-8")
    write(tmp_path)
    for name in (DEFAULTS, INDEX, SPECS):
        assert (tmp_path / name).read_text(encoding="utf-8") == (ROLE / name).read_text(encoding="utf-8"), name


def test_specifications_and_defaults_are_of_the_same_variables_and_agree() -> None:
    """Every variable has a specification and, unless it is required, a default that is the one of the specification."""
    options = read(SPECS)["argument_specs"]["main"]["options"]
    defaults = {**read("defaults/main/role.yml"), **read(DEFAULTS)}
    required = {name for name, option in options.items() if option.get("required")}
    assert set(options) == set(defaults) | required
    assert not required & set(defaults)
    assert {name: options[name].get("default") for name in defaults} == defaults


def test_every_setting_is_a_variable_with_the_agents_own_default() -> None:
    """Settings, defaults and specifications mirror each other; null stands where the agent decides."""
    options = read(SPECS)["argument_specs"]["main"]["options"]
    defaults = read(DEFAULTS)
    assert set(defaults) == {variable(path) for path in all_paths()}
    for path in all_paths():
        own = {str(setting.default) for setting in by_path(path)}
        found = defaults[variable(path)]
        assert found is None or str(tuple(found) if isinstance(found, list) else found) in own
        assert found is not None or default(path) is None
        assert bool(options[variable(path)].get("no_log")) == by_path(path)[0].secret


@pytest.mark.parametrize("path", [path for path in all_paths() if by_path(path)[0].secret], ids=".".join)
def test_no_secret_goes_into_the_configuration_file(path: tuple[str, ...]) -> None:
    """The template writes what the index names, and it names no secret."""
    assert variable(path) not in {setting["variable"] for setting in read(INDEX)["edgescribe__settings"]}


@pytest.mark.parametrize(
    ("url", "keys", "passes"),
    [("https://git.example/fleet.git", ["key"], True), ("https://git.example/fleet.git", [], False), ("", [], True)],
)
def test_a_device_that_pulls_needs_keys(url: str, keys: list[str], *, passes: bool) -> None:
    """Without any it would refuse every commit from then on."""
    (refusal,) = (task for task in read("tasks/preflight.yml") if task["name"] == "Refuse what cannot work")
    (check,) = (check for check in refusal["loop"] if "edgescribe_pull_keys" in check["else"])
    said = {"edgescribe_pull_url": url, "edgescribe_pull_keys": keys}
    found: Any = NativeEnvironment().from_string(check["that"]).render(said)
    assert found is passes


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("extra", LOCKS)
def test_the_role_looks_for_a_wheelhouse_where_it_is_made(python: str, extra: str) -> None:
    """Architecture, class, Python and engine give the folder that `make wheelhouse` gives them."""
    (conclusion,) = (task for task in read("tasks/preflight.yml") if "Conclude" in task["name"])
    facts = {
        "ansible_facts": {"architecture": "aarch64"},
        "edgescribe_cpu_class": "cortex-a76",
        "edgescribe_engine_kind": "faster_whisper" if extra == "faster-whisper" else "whisper_cpp",
        "edgescribe__versions": {"stdout_lines": [python, "252"]},
    }
    kind = jinja2.Template(conclusion["vars"]["edgescribe__kind"]).render(facts)
    name = jinja2.Template(conclusion["ansible.builtin.set_fact"]["edgescribe__class"]).render(
        {**facts, "edgescribe__kind": kind}
    )
    assert name == Order(target("aarch64", "cortex-a76", python), extra, Path()).name


def test_any_text_survives_the_way_into_the_configuration_file() -> None:
    """The role writes TOML, which wants DEL escaped and knows no pairs of surrogates."""
    text = '"\x00\x1f\x7f\u00e9\U0001f600\\'
    environment = jinja2.Environment(autoescape=False)  # noqa: S701 - as Ansible has it
    environment.filters["to_json"] = json.dumps
    template = environment.from_string((ROLE / "templates/config.toml.j2").read_text(encoding="utf-8"))
    setting = {"key": "device.name", "variable": "edgescribe_device_name", "default": None}
    written = template.render(
        edgescribe__settings=[setting], edgescribe__overrides={}, lookup=lambda _plugin, _name: text
    )
    assert tomllib.loads(written) == {"device": {"name": text}}
