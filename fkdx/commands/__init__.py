"""What can be done with label files: one verb of the `fkdx` command per module. They share `options`."""
