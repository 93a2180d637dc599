"""What there is to train on: base models and rows, read light."""
