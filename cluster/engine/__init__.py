"""What runs stages: folders, manifests, workers, retries. It knows no segmentation."""
