"""The gRPC server: servicers, and conversions between messages and our own values."""
