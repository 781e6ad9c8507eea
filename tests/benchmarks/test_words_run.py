from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from bittern.benchmarks.__main__ import main
from bittern.benchmarks.speed.report import NARROWEST
from bittern.benchmarks.words import data
from bittern.benchmarks.words.contestants import (
    CONTESTANTS,
    Contestant,
    centred,
    codes,
    training_free,
)
from bittern.benchmarks.words.data import EmbeddedWords, Words
from bittern.benchmarks.words.learned import LEARNED
from bittern.benchmarks.words.protocol import Quality, Training, WordsTask, evaluate, split
from bittern.benchmarks.words.run import Settings, report
from bittern.hashing.base import Hasher

CLASSES, EACH, DIM = 40, 20, 32


def clustered() -> EmbeddedWords:
    """Classes that float embeddings tell apart well but not perfectly."""
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((CLASSES, DIM))
    labels = np.repeat(np.arange(CLASSES), EACH)

    def unit(rows: np.ndarray) -> np.ndarray:
        noisy = rows + rng.standard_normal(rows.shape)
        lengths = np.linalg.norm(noisy, axis=1, keepdims=True)
        return np.asarray(noisy / lengths, dtype=np.float32)

    words = Words(("",) * len(labels), labels, ("",) * CLASSES)
    return EmbeddedWords(words, unit(centres[labels]), unit(centres))


def test_every_contestant_beats_chance_and_codes_stay_below_floats() -> None:
    found = report(clustered(), Settings(seeds=1, bits=(32,)))
    by_name = {(f["contestant"], f["metric"]): f for f in found.values["figures"]}
    assert {name for name, _ in by_name} == {"chance", *(c.name for c in CONTESTANTS)}
    floats = by_name["float cosine", "cosine"]
    for (name, metric), figure in by_name.items():
        if name != "chance":
            assert figure["seen"] > 2 * by_name["chance", ""]["seen"], (name, metric)
            assert figure["seen"] < 1.1 * floats["seen"], (name, metric)
            assert figure["novel"] < 1.1 * floats["novel"], (name, metric)


def test_means_and_deviations_are_over_splits_and_draws_are_averaged_first() -> None:
    seeds = []

    def measure(task: WordsTask, bits: int, seed: int) -> Mapping[str, Quality]:
        seeds.append(seed)
        return {"asymmetric": Quality(0.1 * len(seeds), 0.5, np.zeros(0))}

    found = report(clustered(), Settings(2, (16,)), [Contestant("counting", measure, draws=2)])
    assert len(set(seeds)) == 4
    assert [f["seen"] for f in found.values["figures"][1::2]] == pytest.approx([0.15, 0.35])
    assert found.tables[0].rows[-1] == ["counting", "asymmetric", "", ".250±.141"]
    assert found.tables[1].rows[-1] == ["counting", "asymmetric", "", ".500±.000"]


def test_no_cell_is_cut_off_at_the_narrowest_width() -> None:
    wide = [
        Contestant(c.name, lambda *_: {"asymmetric": Quality(0.123, 0.456, np.zeros(0))})
        for c in (*CONTESTANTS, *LEARNED)
    ]
    table = report(clustered(), Settings(2), wide).tables[0]
    widths = [max(map(len, column)) for column in zip(table.columns, *table.rows, strict=True)]
    # The float column holds figures too, where floats are really measured.
    widths[2] = widths[3]
    assert sum(widths) + 2 * (len(widths) - 1) <= NARROWEST


def test_a_method_sees_the_training_part_alone() -> None:
    words = clustered()
    task = split(words, 0)
    given: list[Training] = []

    def spy(training: Training, bits: int, seed: int) -> Hasher:
        given.append(training)
        return training_free("pca")(training, bits, seed)

    codes("spy", spy).measure(task, 16, 0)
    (training,) = given
    assert np.array_equal(training.items, words.items[task.train_rows])
    assert np.array_equal(training.queries, words.queries[task.seen])


def test_a_quantizer_whose_bytes_do_not_fit_leaves_its_cell_empty() -> None:
    (quantizer,) = (c for c in CONTESTANTS if c.name == "Faiss PQ")
    assert quantizer.measure(split(clustered(), 0), 24, 0) == {}
    found = report(clustered(), Settings(1, (24, 32)), [quantizer])
    assert [row[3] for row in found.tables[0].rows if row[0] == "Faiss PQ"] == ["", ""]


def test_a_centred_side_knows_only_the_mean_of_its_training_part() -> None:
    task = split(clustered(), 0)
    queries, database, items = centred(task)
    assert np.linalg.norm(database, axis=1) == pytest.approx(np.ones(len(database)))
    first = task.item_embeddings[task.database_rows[0]] - task.training().items.mean(axis=0)
    assert database[0] == pytest.approx(first / np.linalg.norm(first), abs=1e-6)
    assert evaluate(task, -(queries @ database.T)).seen > 0.1
    assert len(items) == len(task.train_rows)


def test_words_is_run_on_request_with_the_settings_of_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"{c:08d} 05 n 01 kind{c} 0 000 | the class\n" for c in range(1, 41)]
    for item in range(41, 841):
        above = f"001 @ {item % 40 + 1:08d} n 0000"
        lines.append(f"{item:08d} 05 n 01 item{item} 0 {above} | text {item}; more\n")
    (tmp_path / "data.noun").write_text("".join(lines))

    def embed(texts: tuple[str, ...], cache: Path) -> np.ndarray:
        return np.random.default_rng(0).standard_normal((len(texts), 32)).astype(np.float32)

    monkeypatch.setattr(data, "embed", embed)
    file = tmp_path / "words.json"
    arguments = ["words", "--quick", "--bits", "16", "--wordnet", str(tmp_path)]
    assert main([*arguments, "--json", str(file)]) == 0
    values = json.loads(file.read_text())["words"]["values"]
    assert (values["items"], values["classes"]) == (800, 40)
    assert {figure["bits"] for figure in values["figures"]} == {0, 16}
    assert {figure["split"] for figure in values["figures"]} == {0}
    assert "novel classes: mAP" in capsys.readouterr().out


def test_a_length_that_no_code_has_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["words", "--bits", "12"])
    assert "multiple of 8" in capsys.readouterr().err


def test_a_folder_without_wordnet_is_an_error_with_a_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["words", "--wordnet", str(tmp_path)]) == 1
    assert "there is no data.noun in" in capsys.readouterr().err
