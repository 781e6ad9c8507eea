"""What is compared: float vectors, and codes of several makings.

vectors     float32, float16, int8 and centred embeddings by cosine
codes       Hashing-Baseline, ITQ, random projection; whatever else is a hasher
quantized   Faiss' PQ and OPQ at equal bytes
learned     saved models, and methods that are trained on a labelled part
selection   all of them by name
"""
