"""Models: built by name (`build`), their `weights`, self-supervised `heads`, a place to run them (`machine`).

A `teacher` answers for crops, for whole images as ReLabel does (`maps`), or beside a student (`online`).
"""
