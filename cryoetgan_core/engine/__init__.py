"""What makes training quick: compiled steps, mixed precision, optimizers, several processes."""
