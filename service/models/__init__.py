"""Models: encoders and hashers that are loaded, saved, shipped or fitted."""
