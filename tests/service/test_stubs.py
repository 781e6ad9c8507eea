"""The committed stubs say what the .proto files say, and those pass the linter."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet

from bittern.v1 import archive_service_pb2, archive_service_pb2_grpc, observation_pb2

PROTOS = Path(__file__).parents[2] / "protos"


def compiled(proto: str, folder: Path) -> FileDescriptorProto:
    protoc = pytest.importorskip("grpc_tools.protoc", reason="needs the extra: dev (grpcio-tools)")
    out = folder / "descriptors"
    status = protoc.main(
        ["protoc", f"--proto_path={PROTOS}", f"--descriptor_set_out={out}", f"bittern/v1/{proto}"]
    )
    assert status == 0
    [file] = FileDescriptorSet.FromString(out.read_bytes()).file
    return without_json_names(file)


def without_json_names(file: FileDescriptorProto) -> FileDescriptorProto:
    """The same file; compilers differ in whether they spell these derived names out."""

    def clear(message: DescriptorProto) -> None:
        for field in message.field:
            field.ClearField("json_name")
        for nested in message.nested_type:
            clear(nested)

    for message in file.message_type:
        clear(message)
    return file


@pytest.mark.parametrize(
    ("proto", "descriptor"),
    [
        ("archive_service.proto", archive_service_pb2.DESCRIPTOR),
        ("observation.proto", observation_pb2.DESCRIPTOR),
    ],
)
def test_committed_stubs_say_what_the_protos_say(
    proto: str, descriptor: FileDescriptor, tmp_path: Path
) -> None:
    committed = FileDescriptorProto.FromString(descriptor.serialized_pb)
    assert without_json_names(committed) == compiled(proto, tmp_path), "run protos/generate.sh"


def test_every_rpc_has_a_committed_method() -> None:
    service = archive_service_pb2.DESCRIPTOR.services_by_name["ArchiveService"]
    servicer = archive_service_pb2_grpc.ArchiveServiceServicer
    assert all(hasattr(servicer, method.name) for method in service.methods)


def test_the_protos_pass_the_linter() -> None:
    beside = str(Path(sys.executable).parent)
    buf = shutil.which("buf") or shutil.which("buf", path=beside)
    if buf is None:
        pytest.skip("buf is not installed: the extra `dev` brings it (buf-bin)")
    linted = subprocess.run([buf, "lint", PROTOS], capture_output=True, text=True, check=False)
    assert (linted.returncode, linted.stdout) == (0, "")
