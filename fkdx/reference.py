"""Slow, obvious twins of everything fast in fkdx. They import nothing of fkdx and judge all of it.

One section a room, in the order of docs/design.md.
"""

# ---- image: boxes cut, resized and flipped exactly as Pillow does ----------------------------------------


# ---- labels: a second reader of the label file, written from docs/format.md alone -------------------------


# ---- crops: random boxes and flips ------------------------------------------------------------------------


# ---- sampler: which image and crop at which step ----------------------------------------------------------


# ---- loss: targets and soft cross-entropy, dense ----------------------------------------------------------


# ---- batch: images on the device --------------------------------------------------------------------------
