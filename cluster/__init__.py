"""Where things run: Ray, DeepSpeed, MLflow, publishing, retries. `fss` holds the mathematics, `jobs` the commands."""
