"""Work on several threads."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from tinyscene.threads import by_threads, in_order


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


@pytest.mark.parametrize("most", [None, 1])
def test_results_come_in_order_and_no_more_jobs_are_drawn_than_are_worked_on(threads, most):
    drawn, taken, places = [], [], set()

    def jobs():
        for job in range(30):
            drawn.append(job)
            assert len(drawn) - len(taken) <= min(threads, most or threads) + 2
            yield job

    def work(job):
        time.sleep(0.001 * (job % 3))
        places.add((threading.get_ident(), torch.get_num_threads()))
        return job * job

    for found in in_order(work, jobs(), most):
        taken.append(found)
    assert taken == [job * job for job in range(30)]
    assert len(places) == min(threads, most or threads)
    assert {of_torch for _, of_torch in places} == {1 if most is None else threads}
    assert torch.get_num_threads() == threads


def test_in_another_thread_jobs_are_done_one_after_the_other():
    def nested(job):
        return [*in_order(lambda part: (part, threading.get_ident()), [job, job])], threading.get_ident()

    for found, mine in in_order(nested, range(4)):
        assert {ident for _, ident in found} == {mine}


def test_an_error_of_a_job_is_raised_in_its_turn_and_the_jobs_after_it_are_dropped(threads):
    done = []

    def work(job):
        if job == 3:
            raise ValueError("job 3")
        done.append(job)
        return job

    found = []
    with pytest.raises(ValueError, match="job 3"):
        found.extend(in_order(work, range(1000)))
    assert found == [0, 1, 2]
    assert len(done) < 20
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("given", "spins"), [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "")]
)
def test_threads_that_wait_spin_briefly_unless_the_user_says_otherwise(given, spins):
    code = "import os, sys, tinyscene; print(os.environ.get('GOMP_SPINCOUNT', ''), 'torch' in sys.modules)"
    unset = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run([sys.executable, "-c", code], env=unset | given, capture_output=True, text=True, check=True)
    assert done.stdout == f"{spins} False\n"
