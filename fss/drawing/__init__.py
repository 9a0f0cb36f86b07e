"""Pictures of images, masks and label maps, and atlases of clusters."""
