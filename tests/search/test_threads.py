"""The threads that search."""

from __future__ import annotations

import threading

import faiss
import pytest

from bittern.index.engines.threads import faiss_threads, for_each, usable_cores


def test_results_come_in_the_order_of_the_items() -> None:
    assert for_each(lambda n: n * n, range(50), 4) == [n * n for n in range(50)]


def test_no_more_threads_work_than_allowed_and_each_holds_openmp_to_one() -> None:
    seen: set[int] = set()
    settings: set[int] = set()
    both = threading.Barrier(2, timeout=5)

    def work(_: int) -> None:
        if usable_cores() > 1:
            both.wait()
        seen.add(threading.get_ident())
        settings.add(faiss.omp_get_max_threads())

    for_each(work, range(20), 2)
    assert len(seen) <= 2
    assert settings == {1}


def test_an_error_in_one_item_reaches_the_caller() -> None:
    def work(number: int) -> int:
        if number == 7:
            raise ValueError("seven")
        return number

    for threads in (1, 2):
        with pytest.raises(ValueError, match="seven"):
            for_each(work, range(20), threads)


def test_work_within_work_does_not_wait_for_itself() -> None:
    inner = for_each(lambda n: sum(for_each(lambda m: m, range(n), 4)), range(30), 4)
    assert inner == [n * (n - 1) // 2 for n in range(30)]


def test_the_callers_faiss_setting_is_put_back_after_an_error() -> None:
    before = faiss.omp_get_max_threads()
    with pytest.raises(ValueError, match="x"), faiss_threads(1):
        raise ValueError("x")
    assert faiss.omp_get_max_threads() == before
