"""Images in: data sets by name, their sources, splits and batches."""
