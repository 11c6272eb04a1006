"""A key to sign commits with."""

import subprocess
from pathlib import Path
from typing import Final

SIGNER: Final = "fleet@example.org"


def make_key(home: Path, signer: str = SIGNER, *options: str, expires: str = "never") -> None:
    """Let GnuPG make a key of `signer` in `home`, a folder of this user's alone; there is no passphrase."""
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--passphrase", "", *options]
    subprocess.run([*gpg, "--quick-generate-key", signer, "ed25519", "sign", expires], check=True)


def public_keys(home: Path, *signers: str) -> str:
    """The public keys of these signers, armoured."""
    gpg = ["gpg", "--homedir", str(home), "--batch", "--armor", "--export", *signers]
    return subprocess.run(gpg, check=True, capture_output=True, text=True).stdout
