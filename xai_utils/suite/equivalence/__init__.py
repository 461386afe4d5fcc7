"""`make equivalent`: old and new code run side by side, so that a change which moves no number keeps the records.

command (what is compared, entries) · compared (the runs) · replay (one run, watched) · history (commits) · definitions,
normal_form (code as it counts) · choices, executed, evidence (whether the runs looked where the code has changed).
"""
