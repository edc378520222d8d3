"""Networks, losses and the LightningModule around them."""
