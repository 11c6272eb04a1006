"""From what the stages report to what the sinks are given."""
