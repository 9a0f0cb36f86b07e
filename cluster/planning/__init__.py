"""What a corpus of any size will cost."""
