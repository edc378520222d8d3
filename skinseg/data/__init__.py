"""From a folder on disk to batches: catalog, split, data module."""
