"""By this name configurations know `skinseg.data.readers.synthetic`."""

from skinseg.data.readers.synthetic import read_synthetic as read_synthetic
