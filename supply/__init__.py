"""Makes from a lock and a CPU class a folder that installs without a network: `python -m supply --help`.

lock ─▶ wheels from the index ─┐
a source ─▶ for the CPU class  ├─▶ wheelhouse/<arch>-<cpu>/ : wheels, requirements.txt, sbom.cdx.json, LICENCES.md
this project ─▶ its own wheel ─┘
"""
