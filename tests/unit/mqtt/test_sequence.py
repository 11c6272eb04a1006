import json
from pathlib import Path

import pytest

from agent.mqtt.sequence import BLOCK, Note, Sequence, read_note, resume


@pytest.mark.parametrize(
    ("note", "in_memory", "stored", "next_seq"),
    [
        (None, None, None, 1),
        (Note(41, exact=True, counter="memory"), 40, 12, 41),
        (Note(65, exact=False, counter="database"), None, 41, 41),
        (Note(65, exact=False, counter="database"), 43, 41, 43),
        (Note(65, exact=False, counter="memory"), 41, 12, 41),
        (Note(65, exact=False, counter="memory"), None, 12, 65),
        (Note(65, exact=False, counter="database"), None, None, 65),
        (Note(65, exact=False, counter=None), 12, 12, 65),
        (None, None, 41, 41),
    ],
    ids=[
        "first start",
        "stopped in good order",
        "strict, after a power cut",
        "strict, went on while the disk failed",
        "balanced, after a crash",
        "balanced, after a power cut",
        "strict, and the database is lost",
        "nobody kept count",
        "the note is lost",
    ],
)
def test_counting_goes_on_exactly_where_that_is_known_and_beyond_every_used_number_otherwise(
    note: Note | None, in_memory: int | None, stored: int | None, next_seq: int
) -> None:
    """No number is used twice; a gap appears only where a power cut took the knowledge."""
    assert resume(note, in_memory, stored) == next_seq


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    """Stands for a folder in memory."""
    folder = tmp_path / "memory"
    folder.mkdir()
    return folder


def open_sequence(folder: Path, memory: Path | None, boot_id: str = "boot-1", stored: int | None = None) -> Sequence:
    """Count in a state folder, for `balanced`."""
    return Sequence(folder, memory, boot_id, stored_next=stored, counter="memory")


def use(sequence: Sequence, count: int) -> list[int]:
    """Give numbers, and use them."""
    numbers = [sequence.next() for _ in range(count)]
    for number in numbers:
        sequence.used(number)
    return numbers


def test_a_clean_stop_leaves_no_gap(tmp_path: Path) -> None:
    """Through restarts and reboots, without any folder in memory."""
    numbers = []
    for boot in range(3):
        sequence = open_sequence(tmp_path, None, f"boot-{boot}")
        numbers += use(sequence, 100)
        sequence.close()
    assert numbers == list(range(1, 301))


def test_a_crash_leaves_no_gap_while_the_machine_stays_up(tmp_path: Path, memory: Path) -> None:
    """The folder in memory outlives the process."""
    numbers = use(open_sequence(tmp_path, memory), 10) + use(open_sequence(tmp_path, memory), 10)
    assert numbers == list(range(1, 21))


def test_a_power_cut_leaves_a_gap_of_at_most_a_block_and_repeats_nothing(tmp_path: Path, memory: Path) -> None:
    """What the folder in memory says about another boot is not believed."""
    for used in (1, 63, 64, 65, 200):
        first = open_sequence(tmp_path, memory, f"boot-a-{used}")
        last = use(first, used)[-1]
        second = open_sequence(tmp_path, memory, f"boot-b-{used}")
        assert last < second.next() <= last + BLOCK + 1
        second.close()


def test_who_ends_before_the_first_number_leaves_no_gap(tmp_path: Path, memory: Path) -> None:
    """However often: neither on the same boot nor after a power cut, which costs one block and not one a start."""
    for _ in range(3):
        open_sequence(tmp_path, memory)
    first = open_sequence(tmp_path, memory)
    assert use(first, 2) == [1, 2]
    first.close()
    for boot in range(3):
        open_sequence(tmp_path, memory, f"boot-{boot + 2}")
    crashed = open_sequence(tmp_path, memory, "boot-5")
    assert use(crashed, 2) == [3, 4]
    for boot in range(3):
        open_sequence(tmp_path, memory, f"boot-{boot + 6}")
    assert open_sequence(tmp_path, memory, "boot-9").next() == 3 + BLOCK


def test_a_number_that_was_given_is_not_given_again(tmp_path: Path, memory: Path) -> None:
    """Whatever it was for: not every message tells the disk its number in time."""
    assert open_sequence(tmp_path, memory).next() == 1
    assert open_sequence(tmp_path, memory).next() == 2


def test_it_writes_to_the_disk_once_in_a_block(tmp_path: Path, memory: Path) -> None:
    """A healthy link wears out no SD card: 640 numbers are ten small files' worth of writing."""
    sequence = open_sequence(tmp_path, memory)
    states = set()
    for _ in range(10 * BLOCK):
        use(sequence, 1)
        states.add((tmp_path / "sequence.json").stat().st_mtime_ns)
    assert len(states) <= 10


def test_a_note_that_makes_no_sense_is_no_note(tmp_path: Path) -> None:
    """Half a file, another's file, no file: counting goes on by the other notes."""
    path = tmp_path / "sequence.json"
    assert read_note(path) is None
    assert not open_sequence(tmp_path, None).damaged
    for text in ("", "{", "[]", "7", '{"next": "x"}', json.dumps({"next": 1, "exact": True, "keeper": "moon"})):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"."):
            read_note(path)
        sequence = open_sequence(tmp_path, None, stored=7)
        assert sequence.next() == 7


def test_a_disk_that_cannot_be_written_stops_no_counting(tmp_path: Path, memory: Path) -> None:
    """Numbers go on even where there is no folder to note them in."""
    assert use(open_sequence(tmp_path / "missing", memory / "missing"), 200) == list(range(1, 201))


def test_agents_with_other_state_folders_share_the_folder_in_memory(tmp_path: Path, memory: Path) -> None:
    """Each counts for itself."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    use(open_sequence(tmp_path / "a", memory), 10)
    assert use(open_sequence(tmp_path / "b", memory), 1) == [1]
    assert use(open_sequence(tmp_path / "a", memory), 1) == [11]
