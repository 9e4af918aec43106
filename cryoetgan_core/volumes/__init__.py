"""What every room needs: density maps, poses, the particle table, lazy arrays, and the two domains of a training."""
