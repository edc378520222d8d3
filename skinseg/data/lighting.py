"""By this name configurations know `skinseg.data.transforms.lighting`."""

from skinseg.data.transforms.lighting import DarkCorners as DarkCorners
from skinseg.data.transforms.lighting import Falloff as Falloff
from skinseg.data.transforms.lighting import Gains as Gains
from skinseg.data.transforms.lighting import Highlights as Highlights
from skinseg.data.transforms.lighting import ShadesOfGrey as ShadesOfGrey
