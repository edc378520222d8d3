"""One self-contained HTML page about an evaluation or a comparison of runs."""

from skinseg.report.page import GalleryImage, comparison_page, evaluation_page

__all__ = ["GalleryImage", "comparison_page", "evaluation_page"]
