"""Generated from protos/bittern/v1; see CONTRIBUTING.md. Do not edit."""
