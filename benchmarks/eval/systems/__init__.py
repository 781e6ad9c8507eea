"""Systems that are compared: float vectors and codes.

base        the interface: fit on training rows, encode items and queries, distances
exact       inner products that are the same to the last bit in any order
vectors     float32, float16, int8 and centred embeddings by exact cosine
codes       Hashing-Baseline, ITQ, random projection, any other hasher
quantized   Faiss' PQ and OPQ at equal bytes
learned     saved models, and methods that are trained on labelled items
selection   all of them by name
"""
