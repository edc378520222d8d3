"""By this name configurations know `skinseg.data.readers.ham10000`."""

from skinseg.data.readers.ham10000 import read_ham10000 as read_ham10000
