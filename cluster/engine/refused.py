"""What is said of a configuration that cannot work."""


class RefusedError(ValueError):
    """What cannot work as it is configured, or with the files and machines that are there; nothing was started."""
