from pathlib import Path

import pytest

from agent.config.settings import Settings
from agent.mqtt.delivery import Outgoing
from agent.mqtt.links import open_outbox
from agent.worker import Worker
from tests.messages import transcript


@pytest.mark.parametrize(("privacy", "left"), [("full", 2), ("keywords", 0), ("off", 0)])
def test_where_words_stay_on_the_device_so_do_those_of_before(tmp_path: Path, privacy: str, left: int) -> None:
    """They are gone before there is a link by which they could leave."""
    failed: list[Worker] = []

    def settings(privacy: str) -> Settings:
        return Settings.model_validate({"state_dir": tmp_path, "publish": {"privacy": privacy, "keywords": ["heater"]}})

    before = open_outbox(settings("full"), failed.append)
    assert before
    for _ in range(2):
        before.put(Outgoing.of("pi-1", transcript(before.next_seq()), 0.0))
    before.close()
    after = open_outbox(settings(privacy), failed.append)
    assert after
    assert after.pending == left
    after.close()
    assert failed == []
