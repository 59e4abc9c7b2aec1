"""Losses between a student's logits and those of a teacher that is asked on the spot (VanillaKD, section 2).

For stored labels there is `fkdx.loss`. Here both sides are dense logits (B, C) of any floating dtype; every
loss is a value a row, (B,), in float32 (float64 where the student's logits are), and the teacher gets no
gradient. A temperature T divides both sides' logits and T**2 multiplies the loss, so that its gradient keeps
its size (Hinton et al., 2015).

ValueError for logits that are not two matrices of one shape, and for a temperature that is not positive.
"""

import torch
from torch import Tensor
from torch.nn import functional


def kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """``T**2 * sum_c t_c log(t_c / s_c)`` of the two softmaxes: vanilla knowledge distillation."""
    student, teacher = _scaled("kl", student, teacher, temperature)
    return temperature**2 * _divergence(student, teacher)


def bkl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Binary KL divergence, the mean over classes: every class of the student says yes or no by itself.

    ``T**2 / C * sum_c t_c log(t_c / s_c) + (1 - t_c) log((1 - t_c) / (1 - s_c))``, t the teacher's softmax
    and s the student's sigmoid: VanillaKD, equation 3, with the mean of its released program.
    """
    student, teacher = _scaled("bkl", student, teacher, temperature)
    t = teacher.softmax(1)
    entropy = -torch.special.xlogy(t, t) - torch.special.xlogy(1 - t, 1 - t)
    cross = functional.binary_cross_entropy_with_logits(student, t, reduction="none")
    return temperature**2 * (cross - entropy).mean(1)


def dkd(
    student: Tensor,
    teacher: Tensor,
    classes: Tensor,
    temperature: float = 1.0,
    alpha: float = 1.0,
    beta: float = 2.0,
) -> Tensor:
    """Decoupled KD (Zhao et al., CVPR 2022): ``T**2 * (alpha * TCKD + beta * NCKD)``.

    TCKD is the divergence between "the true class" and "another one", NCKD that among the others alone.
    classes: (B,) int64, the true class of each row; ValueError for another shape, or C < 2.
    """
    student, teacher = _scaled("dkd", student, teacher, temperature)
    if classes.shape != student.shape[:1] or student.shape[1] < 2:
        got = (tuple(classes.shape), tuple(student.shape))
        raise ValueError(f"dkd: shapes of classes and logits, got {got}, expected (B,) and (B, C), C >= 2")
    (one, others), (t_one, t_others) = _apart(student, classes), _apart(teacher, classes)
    return temperature**2 * (alpha * _divergence(one, t_one) + beta * _divergence(others, t_others))


def dist(
    student: Tensor, teacher: Tensor, temperature: float = 1.0, beta: float = 1.0, gamma: float = 1.0
) -> Tensor:
    """DIST (Huang et al., NeurIPS 2022): ``T**2 * (beta * (1 - inter) + gamma * (1 - intra))``.

    inter is Pearson's correlation of a row's two softmaxes, intra that of a column's, one value for the whole
    batch: the mean over the classes. Deviations from the mean whose length is below 1e-8 count as if it were
    that, so that rounding is no correlation; where all values are equal it is 0.
    """
    student, teacher = _scaled("dist", student, teacher, temperature)
    s, t = student.softmax(1), teacher.softmax(1)
    intra = _correlation(s.T, t.T).mean()
    return temperature**2 * (beta * (1 - _correlation(s, t)) + gamma * (1 - intra))


def mse_gt(
    student: Tensor, teacher: Tensor, classes: Tensor, temperature: float = 1.0, gamma: float = 0.1
) -> Tensor:
    """``mean_c (s_c - t_c)**2 - gamma * log softmax(s)[class]`` of the bare logits s and t.

    The objective of G-VBSM (Shao et al., CVPR 2024) and EDC (NeurIPS 2024). A temperature has no effect: it
    divides both logits, and its square multiplies. classes: (B,) int64; ValueError for another shape.
    """
    student, teacher = _scaled("mse_gt", student, teacher, temperature)
    if classes.shape != student.shape[:1]:
        got = (tuple(classes.shape), tuple(student.shape))
        raise ValueError(f"mse_gt: shapes of classes and logits, got {got}, expected (B,) and (B, C)")
    squares = temperature**2 * (student - teacher).square().mean(1)
    return squares + gamma * functional.cross_entropy(temperature * student, classes, reduction="none")


LOSSES = {"kl": kl, "bkl": bkl, "dkd": dkd, "dist": dist, "mse_gt": mse_gt}


def _scaled(name: str, student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Both logits over the temperature, the teacher's without a gradient."""
    if not temperature > 0:
        raise ValueError(f"{name}: temperature, got {temperature}, expected a positive number")
    if student.ndim != 2 or student.shape != teacher.shape:
        got = (tuple(student.shape), tuple(teacher.shape))
        raise ValueError(f"{name}: shapes of logits, got {got}, expected (B, C) twice")
    dtype = torch.float64 if student.dtype == torch.float64 else torch.float32
    return student.to(dtype) / temperature, teacher.detach().to(dtype) / temperature


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    rows = functional.kl_div(
        student.log_softmax(1), teacher.log_softmax(1), reduction="none", log_target=True
    )
    return rows.sum(1)


def _apart(logits: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B, 2) of the true class against all others together, and (B, C - 1) of the others."""
    classes = classes[:, None]
    columns = torch.arange(logits.shape[1] - 1, device=logits.device).expand(len(logits), -1)
    others = logits.gather(1, columns + (columns >= classes))
    return torch.cat([logits.gather(1, classes), others.logsumexp(1, keepdim=True)], dim=1), others


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation of each two rows."""
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return functional.cosine_similarity(a, b, dim=1, eps=1e-8)
