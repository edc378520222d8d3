"""By this name configurations know `skinseg.data.transforms.augment`."""

from skinseg.data.transforms.augment import compose as compose
