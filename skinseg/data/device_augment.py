"""By this name configurations know what is in `skinseg.data.transforms.device_augment`."""

from skinseg.data.transforms.batch_transforms import Affine as Affine
from skinseg.data.transforms.batch_transforms import BrightnessContrast as BrightnessContrast
from skinseg.data.transforms.batch_transforms import CoarseDropout as CoarseDropout
from skinseg.data.transforms.batch_transforms import ColorJitter as ColorJitter
from skinseg.data.transforms.batch_transforms import Elastic as Elastic
from skinseg.data.transforms.batch_transforms import Gamma as Gamma
from skinseg.data.transforms.batch_transforms import GaussianBlur as GaussianBlur
from skinseg.data.transforms.batch_transforms import GaussianNoise as GaussianNoise
from skinseg.data.transforms.batch_transforms import HorizontalFlip as HorizontalFlip
from skinseg.data.transforms.batch_transforms import VerticalFlip as VerticalFlip
from skinseg.data.transforms.device_augment import DeviceAugment as DeviceAugment
