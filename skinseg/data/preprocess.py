"""By this name configurations know `skinseg.data.transforms.preprocess`."""

from skinseg.data.transforms.preprocess import compose as compose
