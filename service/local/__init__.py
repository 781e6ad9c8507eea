"""An archive that is opened in this process, with its models."""
