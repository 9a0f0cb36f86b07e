"""From untrusted bytes to upright RGB pixels, and back."""
