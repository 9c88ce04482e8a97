"""A run's directory: written, read, shown, compared and multiplied."""
