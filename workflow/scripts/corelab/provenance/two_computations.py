"""Two computations of one number: ours and an independent library's, compared before they leave.

A statistic that carries a conclusion is computed by our kernel and by a library. The
pair goes into the table side by side; a difference beyond the tolerance is an error of software
and stops the analysis, because then nobody can say which number is right.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

from corelab.terms.results import Second


class ComputationsDisagree(ArithmeticError):
    """Our kernel and the library give different numbers for one statistic."""


#: Tolerance of closed forms: both sides are exact up to rounding.
CLOSED_FORM = 1e-8
#: Tolerance of iterative fits (likelihoods, least squares) of which both sides converge tightly.
ITERATIVE = 1e-5
#: Newton's method of lifelines' Cox model to its end. By default it also stops at a relative change
#: of the likelihood of 1e-9, which with 10,000 participants is a hundredth of a standard error.
LIFELINES_NEWTON = {"precision": 1e-12, "r_precision": 0.0}
#: Participants beyond which a library whose design matrix has a column for each is left out.
MOST_PARTICIPANTS = 1000


def attempt(call: Callable[[], Any], library: str) -> tuple[Any, str]:
    """What a library gives; where it fails, None and the words for ``second_method``.

    Our number then stands without a second one: the library's failure is no failure of the
    analysis, and the row says so. Its warnings are not shown: the comparison judges its number.

    Examples
    --------
    >>> attempt(lambda: 1 / 0, "a library")
    (None, 'a library failed (ZeroDivisionError: division by zero): no second value')
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return call(), ""
    except Exception as error:
        cause = " ".join(str(error).split())[:120]
        return None, f"{library} failed ({type(error).__name__}: {cause}): no second value"


def compare(
    ours: float,
    theirs: float,
    library: str,
    *,
    tolerance: float = CLOSED_FORM,
    scale: float | None = None,
) -> Second:
    """The number of the library, after it was compared with ours.

    Parameters
    ----------
    ours, theirs
        The statistic by our kernel and by the library.
    library
        Library and function, as it is to be printed.
    tolerance
        Largest difference, in units of ``scale``; :class:`ComputationsDisagree` beyond it, or if
        one of the two is not finite.
    scale
        Size to measure the difference against; default the larger absolute value, at least 1.
        The standard error is right for a coefficient near 0.

    Examples
    --------
    >>> compare(0.5, 0.5 + 1e-12, "scipy.stats.pearsonr")
    Second(estimate=0.500000000001, method='scipy.stats.pearsonr')
    >>> compare(0.5, 0.6, "scipy.stats.pearsonr")
    Traceback (most recent call last):
    corelab.provenance.two_computations.ComputationsDisagree: ours 0.5, ...
    """
    size = max(abs(ours), abs(theirs), 1.0) if scale is None else abs(scale)
    difference = abs(ours - theirs)
    if not math.isfinite(difference) or difference > tolerance * size:
        raise ComputationsDisagree(
            f"ours {ours!r}, {library} {theirs!r}: the difference {difference:.3g} exceeds "
            f"{tolerance:.1g} x {size:.3g}; one of the two programs is wrong for these data. "
            "Please report it with the rows of this analysis"
        )
    return Second(float(theirs), library)
