"""Being a good service: systemd, heartbeats, priorities, confinement, reloading."""
