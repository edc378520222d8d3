"""By this name configurations know `skinseg.data.readers.challenge`."""

from skinseg.data.readers.challenge import read_challenge as read_challenge
