"""The symbols of the course: one list, of which each notebook shows the part that it uses."""

from collections.abc import Sequence
from dataclasses import dataclass

from .plots import Table, table

CLASH = (
    "The paper behind this course ([arXiv 2503.03789](https://arxiv.org/abs/2503.03789)) writes $\\beta$ for the class prior; "
    "here that is $\\pi$, and $\\beta_t$ is always the noise of a diffusion step."
)


@dataclass(frozen=True)
class Symbol:
    """A symbol as written in formulas and in code (either may be empty), its meaning, and the notebooks that use it."""

    formula: str
    code: str
    meaning: str
    notebooks: str  # "01 03" …


SYMBOLS = (
    Symbol("U, S, N", "`unlabeled`, `sensitive`, `normal`", "the unlabeled images (or points), those labeled sensitive, and the normal ones, which nobody labeled", "01 02 03 04 05 06 07 08"),
    Symbol("$\\pi$", "`prior`", "the class prior: share of sensitive images in U", "01 02 03 04 05 06 07 08"),
    Symbol("$b$", "`b`, `assumed`", "an assumed class prior, right or wrong", "02 03 05 07"),
    Symbol("$\\pi_\\text{all}$", "`prior_all`, `pi_all`", "share of sensitive points in U and S together", "02"),
    Symbol("$n_U, n_S$", "`n_unlabeled`, `n_sensitive`", "the numbers of points (or images) in U and in S", "02 05"),
    Symbol("$p_U, p_S, p_N$", "`world.unlabeled`, …", "densities of unlabeled, sensitive and normal images or points", "02 03 05 07"),
    Symbol("$\\mathbb E_U, \\mathbb E_S, \\mathbb E_N$", "`.mean()`", "means over these densities; with a hat, over the images of a batch", "02 03 04 05 06 07 08"),
    Symbol("$x_0$", "`x0`", "a clean image, pixels in $[-1, 1]$", "01 03 04 06"),
    Symbol("$x_t$", "`xt`", "the image after $t$ of $T$ noising steps; formulas count $t$ from 1, code from 0", "01 03 04 05 06 07 08"),
    Symbol("$\\beta_t$, $\\alpha_t$", "`beta`", "variance of the noise that step $t$ adds, and $1-\\beta_t$, what is left of the old variance", "01"),
    Symbol("$\\bar\\alpha_t$", "`alpha_bar`", "$\\alpha_1\\cdots\\alpha_t$, the share of the image's variance left after $t$ steps", "01 03 05 06"),
    Symbol("$q$, $p_\\theta$", "", "the noising chain; the model's chain back, with means $\\mu_\\theta$ and variances $\\sigma_t^2$", "01"),
    Symbol("$\\tilde\\mu_t$, $\\tilde\\beta_t$", "`from_x0`, `posterior_variance`", "mean and variance of the step back from $x_t$ when $x_0$ is known", "01"),
    Symbol("$\\varepsilon$, $\\hat\\varepsilon$", "`noise`, `eps_hat`", "the noise, and a network's prediction of it", "01 03 04 05 06"),
    Symbol("$\\varepsilon^*$", "`exact`", "the best prediction, $\\mathbb E[\\varepsilon\\mid x_t]$", "01"),
    Symbol("$\\varepsilon_U, \\varepsilon_S, \\varepsilon_N$", "`eps_u`, `world.unlabeled.noise`, …", "the best predictions for data from U, S and N", "03 05 06"),
    Symbol("$\\varepsilon_p$, $\\mathrm{MMSE}_p(t)$", "", "for data of density $p$: the best prediction $\\mathbb E_p[\\varepsilon\\mid x_t]$, and the mean squared error that it still has", "03"),
    Symbol("$r(x_t)$", "`r`, `responsibility`", "$b\\,p_S(x_t)/p_U(x_t)$; with $b=\\pi$ the probability that $x_t$ comes from a sensitive image", "03 05 06 07"),
    Symbol("$\\hat x_0$", "`estimate_x0`", "the image that $\\hat\\varepsilon$ implies at $x_t$", "01"),
    Symbol("$w_t$", "`weights`", "the weight of level $t$ in the bound", "01"),
    Symbol("$v$", "`v`", "$\\sqrt{\\bar\\alpha_t}\\,\\varepsilon-\\sqrt{1-\\bar\\alpha_t}\\,x_0$, what the shipped network puts out", "01"),
    Symbol("$\\sigma$, $z$", "`sigma`, `fresh`", "in a step back, the scale of the fresh noise and that noise, of variance 1", "01"),
    Symbol("$p_\\theta(x_0)$", "", "the density that the model gives to an image", "03"),
    Symbol("$\\mathcal L_\\theta(p)$", "`.mean()`", "mean of $l(x_0)$ over images $x_0$ of density $p$, for a network with weights $\\theta$", "03"),
    Symbol("$L(x_0)$", "", "the negative ELBO, an upper bound on $-\\log p_\\theta(x_0)$", "01 03"),
    Symbol("$l(x_0)$", "`denoising_loss`", "the denoising loss of an image, summed over its pixels", "01 03 04 05 06 07 08"),
    Symbol("$g(x)$", "`g(x)`", "a classifier's score, any real number; high means normal", "02"),
    Symbol("$\\sigma(g)$, $\\mathrm{softplus}(g)$", "`softplus`", "the sigmoid $1/(1+e^{-g})$, which makes a probability of a score, and $\\log(1+e^g)$", "02"),
    Symbol("$l_N(x)$, $l_S(x)$", "`loss`, `sensitive_loss`", "loss of calling $x$ normal, of calling it sensitive", "02"),
    Symbol("$v$", "`value`", "the inner term of (2.8), before it is corrected", "02"),
    Symbol("$R$", "`pu_risk`", "the risk that training minimises", "02 03 04 05"),
    Symbol("$l(x_0;b)$, $l_t$", "`losses_u`, …", "$l(x_0)$ of a network that is told $b$; the part of the loss at level $t$", "05"),
    Symbol("$c$, $s$", "`c`, `share_of_u`", "$b/\\pi$; the share of $\\varepsilon_U$ in the prediction at $b$", "05"),
    Symbol("$g$", "`scores`", "a classifier's score of an image, held out; here high means *sensitive*", "05"),
    Symbol("$h$", "`h`", "a threshold; the images with $g\\ge h$ are a bin", "05"),
    Symbol("$P_U, P_S, P_N$", "`p_u`, `p_s`", "share of the images of U, of S, and of the normal ones, that a bin holds", "05"),
    Symbol("$\\delta$, $\\gamma$", "`delta`, `gamma`", "the chance that the bound (5.5) fails, and a little slack in it", "05"),
    Symbol("$w(x)$", "`weight_u`, `weight_s`", "the weight of an image, any number $\\ge0$", "06"),
    Symbol("$\\omega_i$", "`weight`", "the share of image $x_i$ in $\\mathbb E[x_0\\mid x_t]$", "06"),
    Symbol("$h$", "`threshold`", "the threshold of the sieve: images with $p(\\text{sensitive}\\mid x)<h$ pass", "06"),
    Symbol("$U', S', \\pi'$", "`leftover_prior`", "what passes of U and of S, and the share of sensitive images in $U'$", "06"),
    Symbol("$\\bar l_t$, $c$", "`levels`, `cap`", "the level of the losses on U at $t$, and how many times that a loss on S may count", "06"),
    Symbol("$\\theta$", "`model.parameters()`", "the weights of a network", "01 03 04"),
    Symbol("$\\bar\\theta$, $\\lambda$", "`averaged`, `decay`", "the moving average of the weights, and the share of it that a step keeps", "04"),
    Symbol("$\\tau$", "`temperature`", "the temperature of the log term", "03"),
    Symbol("NSR", "`nsr`", "non-sensitive rate: the share of drawings that are normal", "03 04 05 06 07 08"),
    Symbol("$e_N$, $e_S$", "`e_normal`, `e_sensitive`", "share of normal images that the judge calls sensitive, and of sensitive ones that it calls normal", "04"),
    Symbol("$q_k$", "", "share of digit $k$ among the drawings of normal digits", "04"),
    Symbol("$\\hat p$, $p$, $n$", "`successes / n`", "a share measured on $n$ drawings, and the true one behind it", "04"),
    Symbol("$p_{S'}$, $q_b$", "`labeled`, `target`", "density of the images that are labeled, whatever they are; what a PU model with prior $b$ then aims at", "07"),
    Symbol("$u_k$, $s_k$", "`share_u`, `share_s`", "share of kind $k$ in U and in S", "07"),
    Symbol("$c$", "`contamination`", "share of S that is in truth normal", "07"),
    Symbol("$h$", "`threshold`", "threshold of a filter: it drops the images with $r\\ge h$", "07"),
    Symbol("$\\tau$", "`scale`", "what the loss is divided by; 1 is a sum over pixels, 784 their mean", "07"),
    Symbol("$v$, $m$, $s$", "`mean`, `sd`", "the inner term of one batch, its mean and its standard deviation over batches", "07"),
    Symbol("$\\rho$, $c$, $c'$", "`same`", "share of S that has the caption of U; the caption of U, and that of S", "07"),
    Symbol("$K$, $v_k$", "`k`", "number of processes, and $\\hat{\\mathbb E}_U[l]-\\pi\\,\\hat{\\mathbb E}_S[l]$ of the part of a batch that process $k$ has", "08"),
    Symbol("$c$, $c'$", "`caption`", "a caption, and another one", "08"),
    Symbol("$z$", "`z`", "how many standard deviations an interval reaches; 1.96 for 95 %", "04"),
)


def notation(notebook: str, symbols: Sequence[Symbol] = SYMBOLS) -> Table:
    """The symbols that a notebook ("01" …) uses, as a table.

    Raises:
        ValueError: no symbol belongs to that notebook.
    """
    rows = [vars(symbol) for symbol in symbols if notebook in symbol.notebooks.split()]
    if not rows:
        known = sorted({name for symbol in symbols for name in symbol.notebooks.split()})
        raise ValueError(f"notebook must be one of {', '.join(known)}; got {notebook!r}")
    return table(rows, {"formula": "formula", "code": "code", "meaning": "meaning"})
