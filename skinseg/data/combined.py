"""By this name configurations know `skinseg.data.readers.combined`."""

from skinseg.data.readers.combined import read_combined as read_combined
