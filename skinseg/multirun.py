"""The name by which the configurations of earlier sweeps know what is in `skinseg.sweep.multirun`."""

from skinseg.sweep.multirun import PlanSweep

__all__ = ["PlanSweep"]
