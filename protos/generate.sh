#!/bin/sh
# Writes the Python stubs in bittern/v1/ from protos/bittern/v1/*.proto.
#
# The generator is pinned to the oldest grpcio and protobuf that pyproject.toml allows, because
# stubs run with the versions that made them and later ones, never with earlier ones. It is
# installed into a throw-away environment; the network is needed for that alone.
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "grpcio-tools==1.76.0" "mypy-protobuf==4.0.0" "protobuf==6.33.0" "setuptools<81"
PATH="$work/venv/bin:$PATH"
python -m grpc_tools.protoc --proto_path=protos --python_out=. --mypy_out=quiet:. \
    protos/bittern/v1/observation.proto protos/bittern/v1/archive_service.proto \
    protos/bittern/v1/job_service.proto
python -m grpc_tools.protoc --proto_path=protos --grpc_python_out=. --mypy_grpc_out=quiet:. \
    protos/bittern/v1/archive_service.proto protos/bittern/v1/job_service.proto
