"""Models at work on the images of their users."""
