"""How a network learns: config, recipe, step, loop, optimiser, augmentation."""
