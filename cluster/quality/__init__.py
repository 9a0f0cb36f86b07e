"""What clusters and regions are worth: the workers and the words of the quality stage."""
