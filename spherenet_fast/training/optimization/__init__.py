"""What a training step minimizes and how: losses, learning rate, averaged weights."""
