"""By this name configurations know `skinseg.data.transforms.mix`."""

from skinseg.data.transforms.mix import CopyPaste as CopyPaste
from skinseg.data.transforms.mix import CutMix as CutMix
from skinseg.data.transforms.mix import MixUp as MixUp
