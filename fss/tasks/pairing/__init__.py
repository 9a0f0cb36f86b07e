"""Which regions of one cluster become a task, and how often each was used."""
