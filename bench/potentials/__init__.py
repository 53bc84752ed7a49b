"""What trained models are worth: smoothness, relaxation, frequencies and dynamics."""
