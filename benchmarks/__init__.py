"""Quality and speed, measured on this machine; nothing passes or fails."""
