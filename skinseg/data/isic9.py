"""By this name configurations know `skinseg.data.readers.isic9`."""

from skinseg.data.readers.isic9 import read_isic9 as read_isic9
