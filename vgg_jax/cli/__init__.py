"""Commands: the only place that parses flags and exits."""
