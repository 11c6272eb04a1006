"""A key to sign commits with."""

import subprocess
from pathlib import Path
from typing import Final

SIGNER: Final = "fleet@example.org"


def make_key(home: Path) -> None:
    """Let GnuPG make a key of SIGNER's in `home`, a folder of this user's alone; there is no passphrase."""
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--passphrase", ""]
    subprocess.run([*gpg, "--quick-generate-key", SIGNER, "ed25519", "sign"], check=True)
