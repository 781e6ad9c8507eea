"""Training: from what people have (manifests, folders) to examples, towers and heads."""
