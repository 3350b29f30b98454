"""Names for the arrays that laws, fits and posteriors pass to each other.

Shapes are written in words in every docstring: *rows* are curves, *sizes* the padded data sizes of a row,
*units* the things that own a parameter vector (a curve, or a whole family of curves under a joint law).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Flags = NDArray[np.bool_]
