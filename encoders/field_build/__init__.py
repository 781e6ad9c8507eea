"""Tools that made the label vectors of `field`, and the vocabulary its heads are trained on."""
