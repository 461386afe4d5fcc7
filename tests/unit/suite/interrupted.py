"""A process that is killed, or interrupted, at a chosen moment: for tests of what survives that.

`every_moment(action)` says how many moments an action has, `stopped(action, moment, how)` does it in a child process
that ends there. A moment is a call of the file system (as Python's audit events tell it) or, with `bytecodes`, every
single bytecode of some files.
"""

import os
import signal
import sys
import threading
import traceback
import warnings

CALLS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.truncate", "shutil.rmtree")
KILLED, INTERRUPTED, WHOLE, WRONG, REFUSED = 37, 38, 0, 39, 40
HOWS = ("kill", "interrupt")


class Refused(OSError):
    """What a full or read-only disk says."""

    def __init__(self, number):
        super().__init__(number, os.strerror(number))


class _Moments:
    def __init__(self, stop, how):
        self.count, self.stop, self.how, self.over = 0, stop, how, False

    def next(self):
        self.count += 1
        if self.count == self.stop and not self.over:
            self.over = True  # an interrupt comes once
            if self.how == "kill":
                os._exit(KILLED)
            raise KeyboardInterrupt if self.how == "interrupt" else self.how

    def audited(self, event, _):
        if event in CALLS and not self.over:
            self.next()

    def traced(self, files):
        def trace(frame, event, _):
            if not frame.f_code.co_filename.endswith(files):
                return None
            frame.f_trace_opcodes = True
            if event == "opcode":
                self.next()
            return trace

        return trace


def _in_child(action, moments, bytecodes):
    """The child's exit status, and how many moments it counted; it never returns from here."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads, which the child does without
        child = os.fork()
    if child:
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            told = pipe.read()
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status), int(told or 0)
    status = WRONG
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        threading.excepthook = lambda *_: None
        sys.settrace(moments.traced(bytecodes)) if bytecodes else sys.addaudithook(moments.audited)
        action()
        status = WHOLE
    except KeyboardInterrupt:
        status = INTERRUPTED
    except Refused:
        status = REFUSED
    except BaseException:
        traceback.print_exc()
    finally:
        moments.over = True
        sys.settrace(None)
        os.write(writer, str(moments.count).encode())
        os._exit(status)


def every_moment(action, bytecodes=()):
    """How many moments `action` has when nothing stops it."""
    status, count = _in_child(action, _Moments(None, ""), bytecodes)
    assert (status, count > 0) == (WHOLE, True)
    return count


def stopped(action, moment, how, bytecodes=()):
    """Do `action` in a child that is stopped at a moment (1 …); whether it ended in that way.

    `how`: "kill", "interrupt", or an error that the call raises.
    """
    status, _ = _in_child(action, _Moments(moment, how), bytecodes)
    expected = {"kill": KILLED, "interrupt": INTERRUPTED}.get(how, REFUSED)
    assert status in (WHOLE, expected), (moment, how, status)
    return status != WHOLE
