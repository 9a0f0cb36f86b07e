"""Where a run's files lie: in a folder, or in a bucket (root=s3://BUCKET/FOLDER) with copies on each machine."""
