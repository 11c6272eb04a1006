"""`edgescribe bench`: how right, how fast and how heavy is each way of transcribing, on this machine?

    manifests ─▶ clips ─▶ runner ─▶ raw.jsonl ─▶ summary ─▶ report: terminal · JSON · HTML
                            │  ▲
                 one child process a system, one at work at a time

A *system* is an engine with a model and its options: ours, or a peer's library as it comes. Every clip goes through all
systems before the next clip does, so that whatever else the machine is doing hits all of them alike; only ratios within
one run mean anything.
"""
