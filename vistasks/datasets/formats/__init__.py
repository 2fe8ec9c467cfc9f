"""One file per annotation format: files -> `vistasks.types.Sample`."""
