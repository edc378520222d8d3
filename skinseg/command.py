"""The name by which the configurations of earlier sweeps know what is in `skinseg.config.command`."""

from skinseg.config.command import RefuseEarly

__all__ = ["RefuseEarly"]
