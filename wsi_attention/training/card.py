"""What a trained model folder says of itself."""
