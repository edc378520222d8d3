"""Where the data sets are published, under which licence, and how they want to be cited."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from skinseg.data.readers.fetch import Archive

Part = Literal["images", "masks"]

CHALLENGE_HOST = "https://isic-archive.s3.amazonaws.com/challenges"
DATAVERSE_HOST = "https://dataverse.harvard.edu"


@dataclass(frozen=True)
class Source:
    """A published data set.

    Attributes:
        page: Where people read of it.
        licence: Its licence.
        citations: What its authors ask to be cited.
        kaggle: Handle of the Kaggle data set with the images, if that is where they are.
        archives: Zips with images and masks.
    """

    page: str
    licence: str
    citations: tuple[str, ...]
    kaggle: str | None = None
    archives: Mapping[Part, tuple[Archive, ...]] = field(default_factory=dict)


_HAM10000 = (
    "Tschandl P, Rosendahl C, Kittler H. The HAM10000 dataset, a large collection of multi-source "
    "dermatoscopic images of common pigmented skin lesions. Sci Data 5, 180161 (2018). "
    "doi:10.1038/sdata.2018.161"
)


def _challenge(year: int, names: Mapping[str, str | None]) -> tuple[Archive, ...]:
    return tuple(Archive(f"{CHALLENGE_HOST}/{year}/{name}.zip", digest) for name, digest in names.items())


# SHA-256 of the archives of 2018 as other projects pin them; of 2017 and 2016 none was to be found.
SOURCES: Mapping[str, Source] = {
    "ham10000": Source(
        page="https://doi.org/10.7910/DVN/DBW86T",
        licence="CC BY-NC 4.0",
        citations=(
            _HAM10000,
            "Masks: Tschandl P et al. Human-computer collaboration for skin cancer recognition. Nat Med 26, "
            "1229-1234 (2020). doi:10.1038/s41591-020-0942-0",
        ),
        kaggle="kmader/skin-cancer-mnist-ham10000",
        archives={
            "masks": (
                Archive(
                    f"{DATAVERSE_HOST}/api/access/datafile/3838943",
                    "md5:6e8d252e09cfdb0189199f15985a5b84",
                    "HAM10000_segmentations_lesion_tschandl.zip",
                ),
            )
        },
    ),
    "isic9": Source(
        page="https://www.kaggle.com/datasets/nodoubttome/skin-cancer9-classesisic",
        licence="by image, as in the ISIC Archive: CC-0, CC BY or CC BY-NC",
        citations=(
            "The International Skin Imaging Collaboration, ISIC Archive, https://www.isic-archive.com",
            _HAM10000,
        ),
        kaggle="nodoubttome/skin-cancer9-classesisic",
    ),
    "isic2018": Source(
        page="https://challenge.isic-archive.com/data/#2018",
        licence="by image, as in the ISIC Archive: CC-0, part of the validation and test images CC BY-NC",
        citations=(
            "Codella N et al. Skin Lesion Analysis Toward Melanoma Detection 2018: A Challenge Hosted by the "
            "International Skin Imaging Collaboration (ISIC). arXiv:1902.03368 (2019)",
            _HAM10000,
        ),
        archives={
            "images": _challenge(
                2018,
                {
                    "ISIC2018_Task1-2_Training_Input": "sha256:"
                    "80f98572347a2d7a376227fa9eb2e4f7459d317cb619865b8b9910c81446675f",
                    "ISIC2018_Task1-2_Validation_Input": "sha256:"
                    "0ea920fcfe512d12a6e620b50b50233c059f67b10146e1479c82be58ff15a797",
                    "ISIC2018_Task1-2_Test_Input": "sha256:"
                    "e59ae1f69f4ed16f09db2cb1d76c2a828487b63d28f6ab85997f5616869b127d",
                },
            ),
            "masks": _challenge(
                2018,
                {
                    "ISIC2018_Task1_Training_GroundTruth": "sha256:"
                    "99f8b2bb3c4d6af483362010715f7e7d5d122d9f6c02cac0e0d15bef77c7604c",
                    "ISIC2018_Task1_Validation_GroundTruth": "sha256:"
                    "f6911e9c0a64e6d687dd3ca466ca927dd5e82145cb2163b7a1e5b37d7a716285",
                    "ISIC2018_Task1_Test_GroundTruth": "sha256:"
                    "2e8f6edce454a5bdee52485e39f92bd6eddf357e81f39018d05512175238ef82",
                },
            ),
        },
    ),
    "isic2017": Source(
        page="https://challenge.isic-archive.com/data/#2017",
        licence="CC-0",
        citations=(
            "Codella N et al. Skin Lesion Analysis Toward Melanoma Detection: A Challenge at the 2017 "
            "International Symposium on Biomedical Imaging (ISBI). arXiv:1710.05006 (2017)",
        ),
        archives={
            "images": _challenge(
                2017, dict.fromkeys(f"ISIC-2017_{s}_Data" for s in ("Training", "Validation", "Test_v2"))
            ),
            "masks": _challenge(
                2017,
                dict.fromkeys(
                    f"ISIC-2017_{subset}_Part1_GroundTruth"
                    for subset in ("Training", "Validation", "Test_v2")
                ),
            ),
        },
    ),
    "isic2016": Source(
        page="https://challenge.isic-archive.com/data/#2016",
        licence="CC-0",
        citations=(
            "Gutman D et al. Skin Lesion Analysis toward Melanoma Detection: A Challenge at the "
            "International Symposium on Biomedical Imaging (ISBI) 2016. arXiv:1605.01397 (2016)",
        ),
        archives={
            "images": _challenge(
                2016, dict.fromkeys(f"ISBI2016_ISIC_Part1_{subset}_Data" for subset in ("Training", "Test"))
            ),
            "masks": _challenge(
                2016,
                dict.fromkeys(f"ISBI2016_ISIC_Part1_{subset}_GroundTruth" for subset in ("Training", "Test")),
            ),
        },
    ),
}
