"""What a run tells its reader: the summary and the page."""
