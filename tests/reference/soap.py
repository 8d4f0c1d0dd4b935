"""SOAP as slowly and plainly as it can be written: one tensor, float64, NumPy, loops."""

from dataclasses import dataclass

import numpy as np


@dataclass
class NaiveSoap:
    """The published algorithm for one parameter, step by step."""

    param: np.ndarray
    lr: float = 3e-3
    betas: tuple[float, float] = (0.95, 0.95)
    shampoo_beta: float = -1.0
    eps: float = 1e-8
    weight_decay: float = 0.01
    precondition_frequency: int = 10
    max_precond_dim: int = 10000
    precondition_1d: bool = False
    normalize_grads: bool = False
    correct_bias: bool = True

    def __post_init__(self) -> None:
        self.param = np.array(self.param, dtype=np.float64)
        self.calls = 0
        self.orders: list[np.ndarray] = []
        self.m = np.zeros_like(self.param)  # in the original space
        self.v = np.zeros_like(self.param)  # in the eigenbasis
        rotate = self.param.ndim > 1 or self.precondition_1d
        self.sides = [axis for axis, side in enumerate(self.param.shape) if rotate and side <= self.max_precond_dim]
        self.factors = {axis: np.zeros((self.param.shape[axis],) * 2) for axis in self.sides}
        self.bases: dict[int, np.ndarray] = {}

    def step(self, grad: np.ndarray) -> np.ndarray:
        """Take one gradient; the new value of the parameter."""
        if self.calls > 0:
            self._update(grad)
        self._accumulate(grad)
        if self.calls == 0:
            for axis in self.sides:
                self.bases[axis] = np.linalg.eigh(self.factors[axis])[1][:, ::-1]
        elif self.calls % self.precondition_frequency == 0:
            for axis in self.sides:
                self._refresh(axis)
        self.calls += 1
        return self.param.copy()

    def _update(self, grad: np.ndarray) -> None:
        t, (beta1, beta2) = self.calls, self.betas
        rotated = self._rotate(grad, back=False)
        self.m = beta1 * self.m + (1 - beta1) * grad
        self.v = beta2 * self.v + (1 - beta2) * rotated**2
        update = self._rotate(self._rotate(self.m, back=False) / (np.sqrt(self.v) + self.eps), back=True)
        if self.normalize_grads:
            update = update / np.sqrt(np.mean(update**2))
        size = self.lr
        if self.correct_bias:
            size = self.lr * np.sqrt(1 - beta2**t) / (1 - beta1**t)
        self.param = self.param - size * update
        self.param = self.param * (1 - self.lr * self.weight_decay)

    def _accumulate(self, grad: np.ndarray) -> None:
        beta = self.betas[1] if self.shampoo_beta < 0 else self.shampoo_beta
        for axis in self.sides:
            side = grad.shape[axis]
            outer = np.zeros((side, side))
            for i in range(side):
                for j in range(side):
                    outer[i, j] = np.sum(np.take(grad, i, axis) * np.take(grad, j, axis))
            self.factors[axis] = beta * self.factors[axis] + (1 - beta) * outer

    def _refresh(self, axis: int) -> None:
        factor, basis = self.factors[axis], self.bases[axis]
        order = np.argsort(-np.diag(basis.T @ factor @ basis))
        self.orders.append(order)
        self.v = np.take(self.v, order, axis)
        self.bases[axis] = np.linalg.qr(factor @ basis[:, order])[0]

    def _rotate(self, x: np.ndarray, *, back: bool) -> np.ndarray:
        for axis in self.sides:
            matrix = self.bases[axis] if back else self.bases[axis].T
            x = np.moveaxis(np.tensordot(matrix, x, axes=(1, axis)), 0, axis)
        return x
