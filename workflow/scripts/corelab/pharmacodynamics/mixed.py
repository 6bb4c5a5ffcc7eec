"""Restricted maximum likelihood for repeated measurements.

y_i = X_i b + e_i, Var(e_i) = sum_k s_k E_ik: linear in the covariance parameters s, which makes
every derivative exact. An unstructured MMRM has E_k = the unit symmetric matrices, a linear mixed
model E_k = Z G_k Z' and the identity. Structured covariances (AR(1), Toeplitz ...) are functions
of fewer parameters and enter through the chain rule.

Satterthwaite degrees of freedom use the observed information, as SAS PROC MIXED and R mmrm do;
Kenward-Roger (Biometrics 1997;53:983) adjusts the covariance of the estimates as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import optimize

from corelab.measurement.selection import NotComputable
from corelab.pharmacodynamics.estimates import t_estimate
from corelab.terms.results import Estimate


@dataclass(frozen=True)
class Block:
    """Subjects that share one covariance basis: (g, m, p) designs and (g, m) responses of g
    subjects with m observations each, and (q, m, m) matrices E_k.
    """

    x: np.ndarray
    y: np.ndarray
    basis: np.ndarray


@dataclass(frozen=True)
class _Likelihood:
    """-2 log restricted likelihood at one s, with first and second derivatives in s."""

    value: float
    coefficients: np.ndarray
    covariance: np.ndarray
    gradient: np.ndarray
    observed: np.ndarray = field(repr=False)
    expected: np.ndarray = field(repr=False)
    p_matrices: np.ndarray = field(repr=False)
    q_matrices: np.ndarray = field(repr=False)


def _restricted_likelihood(
    blocks: Sequence[Block], s: np.ndarray, *, ml: bool = False, second: bool = True
) -> _Likelihood | None:
    """-2 log restricted likelihood (log likelihood with ``ml``); None off the parameter space.

    Second derivatives, left at 0 without ``second``, are those of REML also with ``ml``, where they
    only steer.
    """
    p, q = blocks[0].x.shape[2], s.size
    xwx, xwy, logdet, n = np.zeros((p, p)), np.zeros(p), 0.0, 0
    inverses = []
    for block in blocks:
        v = np.einsum("k,kab->ab", s, block.basis)
        try:
            root = np.linalg.cholesky(v)
            w = np.linalg.inv(v)
        except np.linalg.LinAlgError:
            return None
        w = (w + w.T) / 2
        inverses.append(w)
        logdet += 2 * block.y.shape[0] * float(np.sum(np.log(np.diag(root))))
        wx = np.einsum("ab,gbp->gap", w, block.x)
        xwx += np.einsum("gap,gar->pr", block.x, wx)
        xwy += np.einsum("gap,ga->p", wx, block.y)
        n += block.y.size
    try:
        c = np.linalg.inv(xwx)
    except np.linalg.LinAlgError:
        return None
    c = (c + c.T) / 2
    beta = c @ xwy
    quadratic = 0.0
    a, qq = np.zeros((q, p, p)), np.zeros((q, q, p, p))
    b, trace1 = np.zeros((q, p)), np.zeros(q)
    trace2, quad2, score2 = np.zeros((q, q)), np.zeros((q, q)), np.zeros(q)
    for block, w in zip(blocks, inverses, strict=True):
        g = block.y.shape[0]
        residuals = block.y - block.x @ beta
        u = residuals @ w
        quadratic += float(np.sum(u * residuals))
        we = np.einsum("ab,kbc->kac", w, block.basis)
        trace1 += g * np.einsum("kaa->k", we)
        wx = np.einsum("ab,gbp->gap", w, block.x)
        ewx = np.einsum("kab,gbp->kgap", block.basis, wx)
        a += np.einsum("gap,kgar->kpr", wx, ewx)
        eu = np.einsum("kab,gb->kga", block.basis, u)
        score2 += np.einsum("kga,ga->k", eu, u)
        if not second:
            continue
        trace2 += g * np.einsum("kab,lba->kl", we, we)
        wewx = np.einsum("ab,kgbp->kgap", w, ewx)
        flat, weighted = (item.reshape(q, -1, p) for item in (ewx, wewx))
        qq += np.einsum("knp,lnr->klpr", flat, weighted, optimize=True)
        b += np.einsum("gap,kga->kp", wx, eu)
        quad2 += eu.reshape(q, -1) @ (eu @ w).reshape(q, -1).T
    ca = np.einsum("pr,krs->kps", c, a)
    fixed = np.einsum("pr,klrs->klps", c, qq)
    trace_p1 = trace1 - np.einsum("kpp->k", ca)
    trace_p2 = trace2 - 2 * np.einsum("klpp->kl", fixed) + np.einsum("kpr,lrp->kl", ca, ca)
    quad2 -= np.einsum("kp,pr,lr->kl", b, c, b)
    value = logdet + quadratic
    if ml:
        value += n * math.log(2 * math.pi)
    else:
        value += float(np.linalg.slogdet(xwx)[1]) + (n - p) * math.log(2 * math.pi)
    return _Likelihood(
        value,
        beta,
        c,
        (trace1 if ml else trace_p1) - score2,
        2 * quad2 - trace_p2,
        trace_p2,
        -a,
        qq,
    )


Structure = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class MixedFit:
    """A converged fit: fixed effects and their model-based covariance, covariance parameters ``s``
    (weights of the basis), -2 log likelihood (restricted, unless fitted by ML), asymptotic
    covariance of the structure's own parameters theta, and d s / d theta.
    """

    coefficients: np.ndarray
    covariance: np.ndarray
    s: np.ndarray
    minus_two_log_likelihood: float
    theta_covariance: np.ndarray
    jacobian: np.ndarray
    at: _Likelihood = field(repr=False)

    def satterthwaite(self, weights: np.ndarray, alpha: float = 0.05) -> Estimate:
        """Contrast with Satterthwaite degrees of freedom."""
        w = np.asarray(weights, float)
        variance = float(w @ self.covariance @ w)
        cw = self.covariance @ w
        # dC/ds_k = -C (dX'WX/ds_k) C = C A_k C with A_k = -p_matrices[k].
        slope = self.jacobian.T @ np.einsum("p,kpr,r->k", cw, -self.at.p_matrices, cw)
        spread = float(slope @ self.theta_covariance @ slope)
        df = 2 * variance**2 / spread if spread > 0 else math.inf
        return t_estimate(float(w @ self.coefficients), math.sqrt(variance), df, alpha)

    def kenward_roger(self, weights: np.ndarray, alpha: float = 0.05) -> Estimate:
        """Contrast with Kenward-Roger standard error and degrees of freedom.

        For one contrast the degrees of freedom are Satterthwaite's. The covariance must be
        linear in its parameters (unstructured, compound symmetry, random effects).
        """
        if self.jacobian.shape[0] != self.jacobian.shape[1] or not np.allclose(
            self.jacobian, np.eye(len(self.s))
        ):
            raise NotComputable("Kenward-Roger needs a covariance that is linear in its parameters")
        w = np.asarray(weights, float)
        c, p, q = self.covariance, self.at.p_matrices, self.at.q_matrices
        inner = q - np.einsum("kpr,rs,lst->klpt", p, c, p)
        correction = np.einsum("kl,klpt->pt", self.theta_covariance, inner)
        adjusted = c + 2 * c @ correction @ c
        plain = self.satterthwaite(w, alpha)
        error = math.sqrt(float(w @ adjusted @ w))
        return t_estimate(plain.estimate, error, plain.df, alpha)


def fit_reml(
    blocks: Sequence[Block],
    theta: np.ndarray,
    structure: Structure | None = None,
    *,
    ml: bool = False,
    linear: Structure | None = None,
) -> MixedFit:
    """Maximise the restricted likelihood.

    Parameters
    ----------
    blocks
        Subjects by covariance basis.
    theta
        Starting values, unconstrained.
    structure
        theta -> s; None if theta is s.
    ml
        Maximum likelihood instead of REML.
    linear
        Whether the final derivatives are to be taken in s itself (``lambda s: s``): right where
        the structure only reparametrises s (unstructured). Satterthwaite is the same either way;
        Kenward-Roger needs s.

    Raises
    ------
    NotComputable
        If the optimiser does not converge or the information is not positive definite.
    """
    mapping = structure or (lambda values: values)

    def objective(values: np.ndarray) -> tuple[float, np.ndarray]:
        at = _restricted_likelihood(blocks, mapping(values), ml=ml, second=False)
        if at is None or not math.isfinite(at.value):
            return 1e12, np.zeros_like(values)
        return at.value, _jacobian(mapping, values).T @ at.gradient

    direct = linear is not None or structure is None
    s = _newton(blocks, mapping(theta), ml) if direct else None
    best = theta
    if s is None:
        # Near the edge of the parameter space Newton's method in s leaves it: theta cannot.
        found = optimize.minimize(
            objective, theta, jac=True, method="BFGS", options={"gtol": 1e-8, "maxiter": 500}
        )
        best = _polish(objective, found.x)
        s = mapping(best)
    at = _restricted_likelihood(blocks, s, ml=ml)
    if at is None:
        raise NotComputable("the covariance estimate is not positive definite")
    gradient = np.abs(at.gradient if direct else objective(best)[1]).max()
    if gradient > 1e-3:
        raise NotComputable(f"REML did not converge: largest gradient {gradient:.2g}")
    if direct:
        jacobian, information = np.eye(s.size), at.observed
    else:
        jacobian = _jacobian(mapping, best)
        information = _hessian(objective, best)
    eigenvalues = np.linalg.eigvalsh(information)
    if eigenvalues.min() <= 1e-8 * eigenvalues.max():
        raise NotComputable(
            "the information of the covariance parameters is singular (smallest eigenvalue "
            f"{eigenvalues.min():.2g}): the structure has too many parameters for these data"
        )
    # -2 log likelihood: the covariance is twice the inverse of its Hessian.
    return MixedFit(
        at.coefficients,
        at.covariance,
        s,
        at.value,
        2 * np.linalg.inv(information),
        jacobian,
        at,
    )


def _newton(blocks: Sequence[Block], s: np.ndarray, ml: bool) -> np.ndarray | None:
    """Minimum by Newton's method in s, scoring where the Hessian is not positive; None if lost."""
    at = _restricted_likelihood(blocks, s, ml=ml)
    for _ in range(60):
        if at is None:
            return None
        hessian = at.observed if np.linalg.eigvalsh(at.observed).min() > 0 else at.expected
        try:
            step = np.linalg.solve(hessian, at.gradient)
        except np.linalg.LinAlgError:
            return None
        if abs(float(step @ at.gradient)) < 1e-16 * (1 + abs(at.value)):
            return s
        length = 1.0
        while length > 1e-6:
            trial = _restricted_likelihood(blocks, s - length * step, ml=ml)
            if trial is not None and trial.value <= at.value + 1e-10:
                break
            length /= 2
        else:
            # No descent left: rounding, unless the gradient says that it is the edge.
            return s if np.abs(at.gradient).max() < 1e-5 else None
        s, at = s - length * step, trial
    return None


def _polish(
    objective: Callable[[np.ndarray], tuple[float, np.ndarray]], theta: np.ndarray
) -> np.ndarray:
    """Newton steps at the end: BFGS stops where rounding stops it, Newton goes to the gradient."""
    best = theta
    value, gradient = objective(best)
    for _ in range(8):
        if np.abs(gradient).max() < 1e-9:
            break
        try:
            step = np.linalg.solve(_hessian(objective, best), gradient)
        except np.linalg.LinAlgError:
            break
        trial = best - step
        new_value, new_gradient = objective(trial)
        if new_value > value + 1e-9 or np.abs(new_gradient).max() >= np.abs(gradient).max():
            break
        best, value, gradient = trial, new_value, new_gradient
    return best


def _jacobian(mapping: Structure, theta: np.ndarray) -> np.ndarray:
    steps = 1e-6 * np.maximum(1.0, np.abs(theta))
    columns = []
    for position, step in enumerate(steps):
        shift = np.zeros_like(theta)
        shift[position] = step
        # Fourth-order central difference: structures are smooth and cheap.
        columns.append(
            (
                8 * (mapping(theta + shift) - mapping(theta - shift))
                - (mapping(theta + 2 * shift) - mapping(theta - 2 * shift))
            )
            / (12 * step)
        )
    return np.column_stack(columns)


def _hessian(
    objective: Callable[[np.ndarray], tuple[float, np.ndarray]], theta: np.ndarray
) -> np.ndarray:
    steps = 1e-4 * np.maximum(1.0, np.abs(theta))
    columns = []
    for position, step in enumerate(steps):
        shift = np.zeros_like(theta)
        shift[position] = step
        columns.append((objective(theta + shift)[1] - objective(theta - shift)[1]) / (2 * step))
    hessian = np.column_stack(columns)
    return (hessian + hessian.T) / 2
