"""Work on several threads."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from tinyscene.threads import by_threads


@pytest.fixture(params=[1, 2, 5])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("jobs", [1, 7, 17, 40])
def test_every_job_once_in_order_and_each_part_computes_on_one_thread(threads, jobs):
    parts = []
    by_threads(lambda part: parts.append((part, torch.get_num_threads(), threading.get_ident())), range(jobs))
    assert [job for part, _, _ in sorted(parts, key=lambda one: one[0][0]) for job in part] == list(range(jobs))
    assert {of_torch for _, of_torch, _ in parts} == {1}
    assert len(parts) == max(1, min(threads, jobs // 8))
    assert torch.get_num_threads() == threads


def test_an_error_in_any_part_is_raised_and_the_threads_come_back(threads):
    def work(part):
        if 39 in part:
            raise ValueError("the last job")

    with pytest.raises(ValueError, match="the last job"):
        by_threads(work, range(40))
    assert torch.get_num_threads() == threads


def test_threads_beside_each_other_leave_the_number_as_it_was(threads):
    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            list(pool.map(lambda _: by_threads(lambda part: time.sleep(0.001), range(40)), range(4)))
    found = []
    late = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    late.start()
    late.join()
    assert found == [threads]


@pytest.mark.parametrize(
    ("given", "spins"), [({}, "3000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "")]
)
def test_threads_that_wait_spin_briefly_unless_the_user_says_otherwise(given, spins):
    code = "import os, sys, tinyscene; print(os.environ.get('GOMP_SPINCOUNT', ''), 'torch' in sys.modules)"
    unset = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run([sys.executable, "-c", code], env=unset | given, capture_output=True, text=True, check=True)
    assert done.stdout == f"{spins} False\n"
