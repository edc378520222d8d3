"""What is found before a training, and what follows its fit."""
