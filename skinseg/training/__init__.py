"""What is found out before a training: a batch size, a rate, the steps of a budget."""
