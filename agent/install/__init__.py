"""Running as a systemd service on one device: what `edgescribe service` writes, and takes away again.

`facts` looks at the machine, `plan` decides (pure), `disk` writes and removes, `systemctl` starts and stops. Everything
that was written is in a `record`, so that removing it leaves nothing behind and takes nothing that is not ours.
"""
