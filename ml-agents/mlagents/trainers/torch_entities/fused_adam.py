"""Adam for small networks."""

from __future__ import annotations

import operator
from itertools import repeat
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Tuple, Union

from mlagents.torch_utils import torch

_GRADIENT_OF = operator.attrgetter("grad")


class FusedAdam(torch.optim.Adam):
    """`torch.optim.Adam` (Kingma and Ba, 2015) whose steps on the CPU go straight to torch's fused kernel.

    Arithmetic and state are those of ``torch.optim.Adam(fused=True)``, so that either reads the other's state dict.
    What torch does around the kernel at every step (sorting tensors by device and type, entering the profiler, adding
    1 to each parameter's count by an operation of its own) takes longer than the kernel itself. Of hooks on `step` only
    those before it run, and only the optimizer's own.

    :param params: what to optimise; what has no gradient at a step stays as it is.
    :param lr: learning rate.
    """

    def __init__(self, params: Iterable[torch.nn.Parameter], lr: float):
        super().__init__(params, lr=lr, fused=True)
        self._slots = _Slots(self)

    def __setstate__(self, state: Dict[str, Any]) -> None:
        """See `torch.optim.Optimizer`, whose copies have nothing but the state."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._slots = _Slots(self)

    def step(self, closure: Optional[Callable[[], float]] = None) -> Optional[float]:  # type: ignore[override]
        """Take a step along the gradients that are there."""
        was_enabled = torch.is_grad_enabled()
        torch._C._set_grad_enabled(False)  # as `torch.no_grad` does in five times the time
        try:
            return self._step(closure)
        finally:
            torch._C._set_grad_enabled(was_enabled)

    def _step(self, closure: Optional[Callable[[], float]]) -> Optional[float]:
        if not self._slots.are_those_of(self):
            self._slots = _Slots(self)
        is_plain = closure is None and self._slots.are_plain(self)
        if is_plain or not getattr(torch.optim.Adam.step, "hooked", False):  # torch's own does it once it is wrapped
            for hook in self._optimizer_step_pre_hooks.values():
                hook(self, (), {})
        if not is_plain:
            loss: Optional[float] = super().step(closure)
            return loss
        for group, slots in zip(self.param_groups, self._slots.ready):
            gradients = [*map(_GRADIENT_OF, slots.parameters)]
            if any(map(operator.is_, gradients, repeat(None))):
                slots, gradients = slots.with_gradients(gradients)
            if not gradients:
                continue
            slots.counts[slots.rows] += 1
            beta1, beta2 = group["betas"]
            torch._fused_adam_(
                slots.parameters,
                gradients,
                slots.means,
                slots.squares,
                [],
                slots.steps,
                lr=group["lr"],
                beta1=beta1,
                beta2=beta2,
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
            )
        return None

    # Keeps torch from wrapping the method into its profiler, see `torch.optim.Optimizer._patch_step_function`.
    step.hooked = True  # type: ignore[attr-defined]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients, or set them to zero; dropping them needs nothing of what torch does around it."""
        if not set_to_none:
            super().zero_grad(set_to_none=False)
            return
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None


class _Group(NamedTuple):
    """Parameters and what Adam keeps for each; `counts`, at `rows`, are the memory of `steps`."""

    parameters: Tuple[torch.Tensor, ...]
    means: Tuple[torch.Tensor, ...]
    squares: Tuple[torch.Tensor, ...]
    steps: Tuple[torch.Tensor, ...]
    counts: Any
    rows: Union[slice, List[int]] = slice(None)

    @staticmethod
    def of(parameters: List[torch.nn.Parameter], states: List[Dict[str, Any]]) -> _Group:
        """Return the group, whose numbers of steps stand in one tensor from now on, to be counted by one operation."""
        means, squares = (tuple(state[name] for state in states) for name in ("exp_avg", "exp_avg_sq"))
        counts = torch.stack([state["step"] for state in states]) if states else torch.zeros(0)
        steps = counts.unbind()
        for state, step in zip(states, steps):
            state["step"] = step
        return _Group(tuple(parameters), means, squares, steps, counts.numpy())

    def with_gradients(self, gradients: List[Optional[torch.Tensor]]) -> Tuple[_Group, List[torch.Tensor]]:
        """Return those that have a gradient, with these."""
        rows = [row for row, gradient in enumerate(gradients) if gradient is not None]
        parameters, means, squares, steps = (
            tuple(column[row] for row in rows) for column in (self.parameters, self.means, self.squares, self.steps)
        )
        group = _Group(parameters, means, squares, steps, self.counts, rows)
        return group, [gradient for gradient in gradients if gradient is not None]


class _Slots:
    """The parameters of an optimizer, looked up once: each look-up by a tensor costs as much as a part of the step.

    :ivar ready: by group, those on the CPU for which there is a state.
    """

    def __init__(self, optimizer: torch.optim.Optimizer):
        self._state, self._n_states = optimizer.state, len(optimizer.state)
        self._group_sizes = [len(group["params"]) for group in optimizer.param_groups]
        self.ready: List[_Group] = []
        self._others: List[torch.nn.Parameter] = []
        for group in optimizer.param_groups:
            parameters, states = [], []
            for parameter in group["params"]:
                state = optimizer.state.get(parameter)
                if state and parameter.is_cpu:
                    parameters.append(parameter)
                    states.append(state)
                else:
                    self._others.append(parameter)
            self.ready.append(_Group.of(parameters, states))

    def are_those_of(self, optimizer: torch.optim.Optimizer) -> bool:
        """Return whether the optimizer has got no further parameters or states since, nor others."""
        return (
            optimizer.state is self._state
            and len(optimizer.state) == self._n_states
            and [len(group["params"]) for group in optimizer.param_groups] == self._group_sizes
        )

    def are_plain(self, optimizer: torch.optim.Optimizer) -> bool:
        """Return whether the kernel alone will do: on the CPU, without variants, and with all states there."""
        for group in optimizer.param_groups:
            if group["amsgrad"] or group["maximize"] or group["differentiable"]:
                return False
        return all(map(operator.is_, map(_GRADIENT_OF, self._others), repeat(None)))
