"""The words benchmark: real text, small enough for a laptop.

Kinds of animals and plants from WordNet are found by the name of the group that they belong
to. A part of the groups is never seen in training, so the figures show both what learned codes
gain on what they were trained on, and what they lose on everything else.
"""
