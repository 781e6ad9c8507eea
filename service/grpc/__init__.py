"""The gRPC server: servicers, and conversions between messages and Bittern's types."""
