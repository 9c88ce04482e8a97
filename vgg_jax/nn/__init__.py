"""The networks: the paper's table, the module, its layers and what they cost."""
