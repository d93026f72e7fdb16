"""Adam for small networks."""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterable, List, Optional

from mlagents.torch_utils import torch


class FusedAdam(torch.optim.Adam):
    """`torch.optim.Adam` (Kingma and Ba, 2015) whose steps on the CPU go straight to torch's fused kernel.

    Arithmetic and state are those of ``torch.optim.Adam(fused=True)``, so that either reads the other's state dict.
    What torch does around the kernel at every step (sorting tensors by device and type, entering the profiler, adding
    1 to each parameter's count by an operation of its own) takes longer than the kernel itself. Hooks on `step` are
    among it: they do not run.

    :param params: what to optimise; what has no gradient at a step stays as it is.
    :param lr: learning rate.
    """

    def __init__(self, params: Iterable[torch.nn.Parameter], lr: float):
        super().__init__(params, lr=lr, fused=True)

    @torch.no_grad()
    def step(self, closure: Optional[Callable[[], float]] = None) -> Optional[float]:  # type: ignore[override]
        """Take a step along the gradients that are there."""
        if closure is not None or not all(self._is_plain(group) for group in self.param_groups):
            loss: Optional[float] = super().step(closure)
            return loss
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not parameters:
                continue
            states: List[Dict[str, Any]] = [self.state[parameter] for parameter in parameters]
            counts = [state["step"] for state in states]
            for count in counts:
                count.numpy()[()] += 1
            beta1, beta2 = group["betas"]
            torch._fused_adam_(
                parameters,
                [parameter.grad for parameter in parameters],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                counts,
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

    def _is_plain(self, group: Dict[str, Any]) -> bool:
        """Return whether the kernel alone will do: on the CPU, without variants, and with all states there."""
        return not (group["amsgrad"] or group["maximize"] or group["differentiable"]) and all(
            parameter.grad is None or (parameter.is_cpu and parameter in self.state) for parameter in group["params"]
        )
