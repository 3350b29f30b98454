"""Type names for the arrays that laws, fits and posteriors pass to each other.

Docstrings give shapes in words. *Rows* are curves, *sizes* are the padded data sizes of a row, and *units*
own a parameter vector each: a single curve, or a whole family of curves under a joint law.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Flags = NDArray[np.bool_]
