"""The commands: `python -m jobs.NAME key=value ...`, thin entry points over `cluster`."""
