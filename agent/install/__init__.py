"""`edgescribe service`: installs the agent as a systemd service on one device, and removes it.

`facts` looks at the machine, `plan` decides (pure), `disk` writes and removes, `systemctl` starts and stops. A record
(`facts.Record`) names every file that was written. Removal takes those files, and no others.
"""
