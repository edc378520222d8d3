"""Which image is trained on, validated on and tested on."""

from skinseg.data.splits.make import make_split as make_split
