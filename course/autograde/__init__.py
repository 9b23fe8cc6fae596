"""`python -m course autograde WEEK`: marks that can be trusted, although the code that is marked cannot.

    submission -> marking (trusted: the graders)  <-- plain data -->  a sandbox (untrusted: the student's code)
                     |
                  results.sqlite -> nbgrader's gradebook, autograded notebooks and feedback

`marking` runs the same graders as the notebook; `remote` is the answer that they call; `sandbox` and `fork_server`
start the processes in which `worker` runs the student's code. `travel` packs a check's inputs, `changes` tells what
became of them in there, and `believe` says what of that counts. `store`, `record` and `pool` keep, write and
distribute. Only `wire` decides what may come out of a sandbox.
"""
