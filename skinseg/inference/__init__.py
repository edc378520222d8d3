"""Networks at work: photographs in, probabilities and masks out."""
