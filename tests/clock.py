"""A clock that tests move, jump and reboot."""

from dataclasses import replace

from agent.mqtt.outbox_queue import Stamp


class FakeClock:
    """Starts 1,000 s into a boot, at a synchronised wall time."""

    def __init__(self, boot_id: str = "boot-1", monotonic_s: float = 1_000.0) -> None:
        self.now = Stamp(boot_id, monotonic_s, 1_800_000_000.0, synced=True)

    def __call__(self) -> Stamp:
        """What the clocks show."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Time passes on both clocks."""
        self.now = self.now.at(self.now.monotonic_s + seconds)

    def jump_wall(self, seconds: float) -> None:
        """The wall clock is set."""
        self.now = replace(self.now, wall_s=self.now.wall_s + seconds)

    def reboot(self, boot_id: str, *, off_s: float = 60.0, up_s: float = 20.0, synced: bool = True) -> None:
        """The machine was off, and is up again; without sync the wall clock has stood still meanwhile."""
        wall_s = self.now.wall_s + (off_s + up_s if synced else 0.0)
        self.now = Stamp(boot_id, up_s, wall_s, synced)
