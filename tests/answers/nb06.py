"""Answers to the exercises of notebook 06 as learners write them: right ones, and wrong ones with a part of the diagnosis."""

import torch


def weighted_by_dot(loss_u, loss_s, weight_u, weight_s, prior):
    return weight_u @ loss_u / len(loss_u) - prior * (weight_s @ loss_s) / len(loss_s)


def kernel_by_loop(xt, images, signal, sigma):
    noises = []
    for x, a, b in zip(xt, signal.flatten(), sigma.flatten()):
        logits = torch.stack([-((x - a * image) ** 2).sum() / (2 * b**2) for image in images])
        x0 = sum(w * image for w, image in zip(torch.softmax(logits, 0), images))
        noises.append((x - a * x0) / b)
    return torch.stack(noises)


def kernel_by_broadcast(xt, images, signal, sigma):
    d2 = ((xt.unsqueeze(1) - signal.unsqueeze(1) * images) ** 2).sum((2, 3, 4))
    w = torch.exp(-d2 / (2 * sigma.view(-1, 1) ** 2) - (-d2 / (2 * sigma.view(-1, 1) ** 2)).amax(1, keepdim=True))
    w = w / w.sum(1, keepdim=True)
    return (xt - signal * torch.einsum("bm,mchw->bchw", w, images)) / sigma


def left_by_counting(r_u, r_s, prior, threshold):
    u = sum(r < threshold for r in r_u.tolist()) / len(r_u)
    s = sum(r < threshold for r in r_s.tolist()) / len(r_s)
    return prior * s / u


def budget_by_if(grad_u, grad_s, budget):
    most = budget * torch.linalg.norm(grad_u)
    size = torch.linalg.norm(grad_s)
    if size > most:
        grad_s = grad_s * most / size
    return grad_u + grad_s


def front_by_loops(nsr, frechet):
    result = []
    for n, f in zip(nsr, frechet):
        beaten = any(a >= n and b <= f and (a > n or b < f) for a, b in zip(nsr, frechet))
        result.append(not beaten)
    return torch.tensor(result)


def front_one_by_one(nsr, frechet):
    result = torch.ones(len(nsr), dtype=torch.bool)
    for i in range(len(nsr)):
        result[i] = not (((nsr >= nsr[i]) & (frechet < frechet[i])) | ((nsr > nsr[i]) & (frechet <= frechet[i]))).any()
    return result


RIGHT = {
    "06.1": [weighted_by_dot, lambda u, s, w, v, b: torch.mean(w * u) - b * torch.mean(v * s)],
    "06.2": [kernel_by_loop, kernel_by_broadcast],
    "06.3": [left_by_counting, lambda u, s, b, h: b * (s < h).float().mean() / (u < h).float().mean()],
    "06.4": [budget_by_if, lambda u, s, c: u + s * min(1, c * u.norm() / s.norm())],
    "06.5": [front_by_loops, front_one_by_one],
}

WRONG = {
    "06.1": [
        (lambda u, s, w, v, b: (w * u).mean(), "what slips through stays in"),
        (lambda u, s, w, v, b: w @ u / w.sum() - b * (v @ s) / v.sum(), "plain means of w l"),
        (lambda u, s, w, v, b: (w * u - b * v * s).mean(), "one by one"),
        (lambda u, s, w, v, b: weighted_by_dot(u, s, w, 1 - v, b), "on both sides"),
        (lambda u, s, w, v, b: weighted_by_dot(u, s, w, v, 1), "prior is missing"),
        (lambda u, s, w, v, b: torch.relu(weighted_by_dot(u, s, w, v, b)), "no correction"),
        (lambda u, s, w, v, b: weighted_by_dot(u, s, torch.ones(6), v, b), "weights of U are missing"),
        (lambda u, s, w, v, b: weighted_by_dot(u, s, w, v, b).item(), "no slope passes"),
        (lambda u, s, w, v, b: None, "`return`"),
    ],
    "06.2": [
        (lambda xt, images, a, b: (xt - a * ((xt - a * kernel_by_loop(xt, images, a, b) * 0 - b * kernel_by_loop(xt, images, a, b)) / a)), "division by `sigma`"),
        (lambda xt, images, a, b: (xt - b * kernel_by_loop(xt, images, a, b)) / a, "this is the mean image"),
        (lambda xt, images, a, b: -kernel_by_broadcast(xt, images, a, b), "sign is turned"),
        (lambda xt, images, a, b: (xt - a * images.mean(0)) / b, "all images weigh the same"),
    ],
    "06.3": [
        (lambda u, s, b, h: b * (s <= h).float().mean() / (u <= h).float().mean(), "<, not <="),
        (lambda u, s, b, h: b * (s >= h).float().mean() / (u >= h).float().mean(), "held back"),
        (lambda u, s, b, h: b * (s < h).sum() / (u < h).sum(), "take shares"),
        (lambda u, s, b, h: (s < h).float().mean() / (u < h).float().mean(), "prior is missing"),
        (lambda u, s, b, h: b * (s < h).float().mean(), "of those that pass it is more"),
        (lambda u, s, b, h: 1 - left_by_counting(u, s, b, h), "left and normal"),
    ],
    "06.4": [
        (lambda u, s, c: u + s * c * u.norm() / s.norm(), "at most 1"),
        (lambda u, s, c: u + c * s, "only cut where"),
        (lambda u, s, c: u - (budget_by_if(u, s, c) - u), "sign is in it"),
        (lambda u, s, c: budget_by_if(u, s, c) - u, "grad_u is missing"),
        (lambda u, s, c: torch.maximum(torch.minimum(s, c * u.norm()), -c * u.norm()) + u, "each component"),
        (lambda u, s, c: u if s.norm() > c * u.norm() else u + s, "you dropped it"),
    ],
    "06.5": [
        (lambda n, f: ~front_by_loops(n, f), "another one beats"),
        (lambda n, f: n == max(n), "the best NSR"),
        (lambda n, f: front_by_loops(n, -f), "smaller Fréchet distance is better"),
        (lambda n, f: torch.nonzero(front_by_loops(n, f)).squeeze(1), "one True or False"),
        (lambda n, f: torch.stack([~((n > a) & (f < b)).any() for a, b in zip(n, f)]), "better in both"),
    ],
}
