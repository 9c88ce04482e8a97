"""Using a network: features, losses, descriptors."""
