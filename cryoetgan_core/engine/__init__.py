"""What makes training quick: recorded steps, mixed precision, optimizers, several processes."""
