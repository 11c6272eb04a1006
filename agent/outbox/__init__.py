"""Store and forward: what keeps transcripts while the broker is away. The seam is `agent.delivery.Outbox`."""
