"""The diagnosis terms of all data sets, and the map between them, in one place.

Common terms are the seven of HAM10000 (Tschandl, Rosendahl, Kittler, Sci Data 2018,
doi:10.1038/sdata.2018.161, "Diagnostic categories"), which says what each of them holds:

- akiec: actinic keratoses and intraepithelial carcinoma (Bowen's disease), the non-invasive variants of
  squamous cell carcinoma.
- bkl: seborrheic keratoses, solar lentigines and lichen-planus like keratoses.
- vasc: cherry angiomas, angiokeratomas, pyogenic granulomas and haemorrhage.

The nine folders of the Kaggle set (nodoubttome/skin-cancer9-classesisic) split akiec into actinic keratosis
and squamous cell carcinoma, and bkl into pigmented benign keratosis (the ISIC Archive's word for HAM10000's
bkl) and seborrheic keratosis. By image id, 192 of the 197 files under squamous cell carcinoma are akiec in
HAM10000, and all 80 under seborrheic keratosis are melanoma in the ISIC Archive; an audit shows both.
"""

from __future__ import annotations

from collections.abc import Mapping

DIAGNOSES: Mapping[str, str] = {
    "akiec": "actinic keratosis or intraepithelial carcinoma",
    "bcc": "basal cell carcinoma",
    "bkl": "benign keratosis",
    "df": "dermatofibroma",
    "mel": "melanoma",
    "nv": "melanocytic nevus",
    "vasc": "vascular lesion",
}
"""The common terms and what they mean."""

ISIC9: Mapping[str, str] = {
    "actinic keratosis": "akiec",
    "basal cell carcinoma": "bcc",
    "dermatofibroma": "df",
    "melanoma": "mel",
    "nevus": "nv",
    "pigmented benign keratosis": "bkl",
    "seborrheic keratosis": "bkl",
    "squamous cell carcinoma": "akiec",
    "vascular lesion": "vasc",
}
"""The folder names of the 9-class set."""

ISIC_ARCHIVE: Mapping[str, str] = {
    "actinic keratosis": "akiec",
    "angiokeratoma": "vasc",
    "basal cell carcinoma": "bcc",
    "dermatofibroma": "df",
    "hemangioma": "vasc",
    "lichen planus like keratosis": "bkl",
    "melanoma in situ": "mel",
    "melanoma invasive": "mel",
    "melanoma metastasis": "mel",
    "melanoma, nos": "mel",
    "nevus": "nv",
    "pigmented benign keratosis": "bkl",
    "seborrheic keratosis": "bkl",
    "solar lentigo": "bkl",
    "squamous cell carcinoma in situ": "akiec",
}
"""Terms of `diagnosis_3` of the ISIC Archive, in lower case. What is not here has no common term."""
