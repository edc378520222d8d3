"""By this name configurations know `skinseg.data.transforms.dermoscopy`."""

from skinseg.data.transforms.dermoscopy import Bubbles as Bubbles
from skinseg.data.transforms.dermoscopy import GelBorder as GelBorder
from skinseg.data.transforms.dermoscopy import Hair as Hair
from skinseg.data.transforms.dermoscopy import Ink as Ink
from skinseg.data.transforms.dermoscopy import Ruler as Ruler
