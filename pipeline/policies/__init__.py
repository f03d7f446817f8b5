"""The named policies: YAML files, read by `pipeline.policy`."""
