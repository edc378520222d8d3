"""By this name configurations know `skinseg.data.transforms.hair_removal`."""

from skinseg.data.transforms.hair_removal import HairRemoval as HairRemoval
