"""Parameters that go through SOAP together: one shape, one group, one age, their state in common tensors."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from skipless.errors import InputError
from skipless.optim.soap.eigenbasis import accumulate_, first_basis, project, refresh_, unfold
from skipless.optim.soap.layout import Layout


def state_dtype(param: Tensor) -> torch.dtype:
    """The dtype of a parameter's state: fp32 for half precision, else the parameter's own."""
    return torch.promote_types(param.dtype, torch.float32)


class Stack:
    """`b` tensors, `layout.split` from each parameter, and their state.

    `states[i]`, what the optimizer keeps for one parameter, holds views of the stack's tensors, so that nothing is
    gathered or scattered between steps:

    - `step`: updates so far; 0 after the gradient that only warms the preconditioner.
    - `exp_avg`, `exp_avg_sq`: the moments in the eigenbases, `(split, *sides)`.
    - `factors`, `bases`: one per side, `(split, s, s)` (see `eigenbasis`), or `None` where a side is left alone.
    """

    exp_avg: Float[Tensor, "b ..."]
    exp_avg_sq: Float[Tensor, "b ..."]
    factors: list[Tensor | None]
    bases: list[Tensor | None]

    def __init__(
        self,
        params: list[Tensor],
        states: list[dict[str, Any]],
        places: list[int],
        group: dict[str, Any],
        layout: Layout,
    ):
        self.params, self.states, self.places, self.group, self.layout = params, states, places, group, layout
        self.kind = params[0].dtype, params[0].device
        self.fresh = not states[0]
        self.skipped = torch.zeros(len(params) * layout.split, dtype=torch.int64, device=params[0].device)
        if not self.fresh:
            self._join()

    def holds(self, state: Mapping[Tensor, Any]) -> bool:
        """Whether parameters and state are still this stack's: neither moved or cast, nor replaced by other hands."""
        now = self.params[0].dtype, self.params[0].device
        return now == self.kind and all(
            state.get(param) is own for param, own in zip(self.params, self.states, strict=True)
        )

    def advance_(self, grads: list[Tensor]) -> list[Tensor] | None:
        """Take in the parameters' gradients, and give what `descend_` moves them by: nothing, the first time."""
        grad = self._gradient(grads)
        if self.fresh:
            self._warm_up(grad)
            return None
        updates = self._updates(grad)
        self._accumulate_(grad)
        if self.states[0]["step"] % self.group["precondition_frequency"] == 0:
            self._refresh_()
            self._report_skipped()
        return updates

    def _gradient(self, grads: list[Tensor]) -> Float[Tensor, "b ..."]:
        """The gradients as one stack in the state's dtype; a tensor that is not finite counts as zero."""
        grad = torch.stack(grads) if len(grads) > 1 else grads[0][None]
        grad = self.layout.fold(grad).to(state_dtype(self.params[0]))
        # Squared as in the factors: a gradient may be finite where its factor is not.
        if grad.device.type == "cpu":  # elsewhere, looking would wait for the device
            norm = torch.linalg.vector_norm(grad).item()
            if norm * norm <= torch.finfo(grad.dtype).max:
                return grad
        lost = ~torch.linalg.vector_norm(grad, dim=tuple(range(1, grad.ndim)), keepdim=True).square().isfinite()
        self.skipped += lost.flatten()
        return torch.where(lost, 0.0, grad)

    def _warm_up(self, grad: Float[Tensor, "b ..."]) -> None:
        """Start the state from a first gradient."""
        self.exp_avg, self.exp_avg_sq = grad.new_zeros(grad.shape), grad.new_zeros(grad.shape)
        sides = [side if active else None for side, active in zip(self.layout.sides, self.layout.active, strict=True)]
        self.factors = [None if side is None else grad.new_zeros(len(grad), side, side) for side in sides]
        self._accumulate_(grad)
        self.bases = []
        for side, factor in enumerate(self.factors):
            basis, failed = (None, []) if factor is None else first_basis(unfold(grad, side))
            self.bases.append(basis)
            if failed:
                self._warn("the gradient cannot be decomposed, and the basis starts from the identity:", failed)
        self._share(step=0)
        self._report_skipped()

    def _updates(self, grad: Float[Tensor, "b ..."]) -> list[Tensor]:
        """Adam in the eigenbases: an update for each parameter, in the state's dtype."""
        group, (beta1, beta2) = self.group, self.group["betas"]
        step = self.states[0]["step"] + 1
        for state in self.states:
            state["step"] = step
        rotated = project(grad, self.bases)
        self.exp_avg.lerp_(rotated, 1 - beta1)
        self.exp_avg_sq.mul_(beta2).addcmul_(rotated, rotated, value=1 - beta2)
        denominator = self.exp_avg_sq.sqrt().add_(group["eps"])
        update = project(torch.div(self.exp_avg, denominator, out=denominator), self.bases, back=True)
        if group["normalize_grads"]:
            update /= update.square().mean(tuple(range(1, update.ndim)), keepdim=True).sqrt() + 1e-30
        return list(self.layout.unfold(update).unbind())

    def _accumulate_(self, grad: Float[Tensor, "b ..."]) -> None:
        """Let the factors take in a gradient."""
        beta = self.group["shampoo_beta"]
        beta = beta if beta >= 0 else self.group["betas"][1]
        for side, factor in enumerate(self.factors):
            if factor is not None:
                accumulate_(factor, unfold(grad, side), beta)

    def _refresh_(self) -> None:
        """Turn the bases towards the factors' present eigenvectors.

        The first moment turns with them; the second holds no directions and stays.
        """
        momentum = project(self.exp_avg, self.bases, back=True)
        for factor, basis in zip(self.factors, self.bases, strict=True):
            if factor is not None and basis is not None:
                refresh_(basis, factor)
        self.exp_avg.copy_(project(momentum, self.bases))

    def _share(self, step: int) -> None:
        """Give every parameter its views of the stack."""
        for index, state in enumerate(self.states):
            part = slice(index * self.layout.split, (index + 1) * self.layout.split)
            state["step"] = step
            state["exp_avg"], state["exp_avg_sq"] = self.exp_avg[part], self.exp_avg_sq[part]
            state["factors"] = [None if factor is None else factor[part] for factor in self.factors]
            state["bases"] = [None if basis is None else basis[part] for basis in self.bases]
        self.fresh = False

    def _join(self) -> None:
        """Bring the states of the parameters together, in the dtype and on the device that these have by now."""
        states, sides = self.states, range(len(self.layout.sides))
        for state in states:
            check_state(state, self.layout)
        like = torch.empty(0, dtype=state_dtype(self.params[0]), device=self.params[0].device)
        self.exp_avg = _cat([state["exp_avg"] for state in states]).to(like)
        self.exp_avg_sq = _cat([state["exp_avg_sq"] for state in states]).to(like)
        self.factors = [_cat_or_none([state["factors"][side] for state in states], like) for side in sides]
        self.bases = [_cat_or_none([state["bases"][side] for state in states], like) for side in sides]
        self._share(states[0]["step"])

    def _report_skipped(self) -> None:
        if lost := self.skipped.nonzero().flatten().tolist():
            self.skipped.zero_()
            self._warn("gradients that are not finite were taken as zero since the last refresh:", lost)

    def _warn(self, what: str, tensors: Sequence[int]) -> None:
        """Warn of what happened to some tensors of the stack, by their parameters' place in the optimizer."""
        places = sorted({self.places[index // self.layout.split] for index in tensors})
        named = ", ".join(f"parameter {place}" for place in places)
        warnings.warn(f"SOAP: {what} {named} (shape {self.layout.shape})", RuntimeWarning, stacklevel=2)


def check_state(state: Mapping[str, Any], layout: Layout) -> None:
    """Raise `InputError` unless a parameter's state is SOAP's and of this layout."""
    if state.keys() == {"step"}:
        raise InputError(
            f"SOAP: the state of a parameter of shape {layout.shape} is kept by another process, of which there were "
            "more when this one was shared out: save with gathered_state, on all of them, and load that"
        )
    if not state.keys() >= {"step", "exp_avg", "exp_avg_sq", "factors", "bases"}:
        raise InputError(f"SOAP: cannot use the state of another optimizer, with {', '.join(map(str, state))}")
    shape, expected = tuple(state["exp_avg"].shape), (layout.split, *layout.sides)
    active = tuple(factor is not None for factor in state["factors"])
    if (shape, active) != (expected, layout.active):
        raise InputError(
            f"SOAP: the state of a parameter of shape {layout.shape} is laid out as {shape} with bases {active}, but "
            f"its group asks for {expected} with {layout.active}: load the checkpoint of this model, and leave "
            "max_precond_dim, merge_dims, precondition_1d, data_format and split as they were at the first step"
        )


def kept_tensors(state: Mapping[str, Any]) -> list[Tensor]:
    """List the tensors of a parameter's state, in a fixed order."""
    maybe = (state["exp_avg"], state["exp_avg_sq"], *state["factors"], *state["bases"])
    return [tensor for tensor in maybe if tensor is not None]


def blank_state(layout: Layout, step: int, like: Tensor) -> dict[str, Any]:
    """A parameter's state with uninitialised tensors of `like`'s dtype and device, to be filled."""
    sides = [side if active else None for side, active in zip(layout.sides, layout.active, strict=True)]

    def squares() -> list[Tensor | None]:
        return [None if side is None else like.new_empty(layout.split, side, side) for side in sides]

    moments = [like.new_empty(layout.split, *layout.sides) for _ in range(2)]
    return {
        "step": step,
        "exp_avg": moments[0],
        "exp_avg_sq": moments[1],
        "factors": squares(),
        "bases": squares(),
    }


def _cat(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _cat_or_none(parts: list[Tensor | None], like: Tensor) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return _cat(present).to(like) if present else None


def descend_(params: list[Tensor], updates: list[Tensor], group: Mapping[str, Any], step: int) -> None:
    """Move parameters of one dtype by their updates, with Adam's bias correction, then let them decay.

    That is `p <- keep * (p - size * update)`, rounded once where the parameters are in half precision.
    """
    lr = size = float(group["lr"])
    if group["correct_bias"]:
        beta1, beta2 = group["betas"]
        size *= (1 - beta2**step) ** 0.5 / (1 - beta1**step)
    keep = 1 - lr * group["weight_decay"]
    if params[0].dtype == updates[0].dtype:
        if keep != 1:  # added, not multiplied: 1 - 1e-6 has lost the half of its digits in fp32, and it is faster
            torch._foreach_add_(params, params, alpha=keep - 1)  # pyright: ignore[reportPrivateImportUsage]
        torch._foreach_add_(params, updates, alpha=-keep * size)  # pyright: ignore[reportPrivateImportUsage]
        return
    for param, update in zip(params, updates, strict=True):
        param.copy_(param.to(update.dtype).sub_(update, alpha=size).mul_(keep))
