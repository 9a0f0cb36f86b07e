"""k-means as sums that add: starts, assignment, Lloyd, hierarchies."""
