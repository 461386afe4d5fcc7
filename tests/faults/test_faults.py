"""Faults of disk and clock: whatever call refuses, and whatever the time, the old record or the new one is whole."""

import errno
import os
import time

import pytest
from interrupted import Refused, every_moment, stopped
from test_publish import BESIDE, NEW, OLD, fresh, held  # noqa: F401

from xai_utils.suite import publish


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO])
def test_a_disk_that_refuses_at_any_call_leaves_the_old_record(fresh, number):  # noqa: F811
    folder, outcomes = fresh(), []
    count = every_moment(lambda: publish.publish(folder, NEW))
    for moment in range(1, count + 1):
        folder = fresh()
        ended = stopped(lambda folder=folder: publish.publish(folder, NEW), moment, Refused(number))
        publish.settle(folder)
        found = held(folder)
        assert found in (OLD | BESIDE, NEW | BESIDE)
        if ended:  # it said that it failed
            outcomes.append("old" if found == OLD | BESIDE else "new")
    assert outcomes.count("old") > 10
    assert "new" not in outcomes


def test_a_clock_that_goes_back(fresh, monkeypatch):  # noqa: F811
    folder, now = fresh(), [time.time()]

    def earlier():
        now[0] -= 3600
        return now[0]

    monkeypatch.setattr(time, "time", earlier)
    for path in folder.iterdir():
        os.utime(path, (now[0] + 10**6,) * 2)  # from the future
    publish.publish(folder, NEW)
    assert held(folder) == NEW | BESIDE
    os.utime(folder, (0, 0))
    publish.publish(folder, OLD)
    assert held(folder) == OLD | BESIDE
