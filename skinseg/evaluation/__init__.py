"""From images and predictions to rows of scores, and from the rows to everything that is said of them."""
