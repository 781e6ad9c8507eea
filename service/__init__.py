"""Models, the engine that encodes and searches, the gRPC server."""
