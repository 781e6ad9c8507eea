"""Media decoding and windowing, towers, the catalogue of encoders."""
