"""Train, compare and trust networks that outline skin lesions in dermoscopic photographs."""

import os

__version__ = "0.1.0"

# Both are read at import of the library in question, so they are set before anything imports it.
# albumentations asks the package registry for a newer release, which hangs without a network.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
# OpenMP's threads spin while they wait; beside other processes that made a training step 2.4 to 3.7 times
# as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
