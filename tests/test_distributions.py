"""All distributions as torch.distributions: what torch asks of its own, for every law, dimension and shape of parameters."""

import copy
import itertools
import math
import pickle

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, constraints, kl_divergence

import transphere as ts

BATCHES = [(), (3,), (2, 3)]
SAMPLES = [(), (4,), (4, 5), (0,)]
KAPPAS = torch.tensor([[0.0, 1.0, 5.0], [11.0, 64.0, 1e3]], dtype=torch.float64)
LAWS = {
    "vmf": ts.VonMisesFisher,
    "power": ts.PowerSpherical,
    "uniform": lambda loc, k, validate_args=None: ts.HypersphericalUniform(
        loc.shape[-1], torch.broadcast_shapes(loc.shape[:-1], k.shape), dtype=loc.dtype, validate_args=validate_args
    ),
}


@pytest.fixture(params=LAWS)
def make(request):
    return LAWS[request.param]


@pytest.fixture(params=["vmf", "power"])
def directed(request):
    """A law with a mean direction and a concentration."""
    return LAWS[request.param]


def within(samples, expected, sigmas=5):
    """The mean of samples (n, ...) against the expected one."""
    error = samples.std(0) / math.sqrt(len(samples))
    assert ((samples.mean(0) - expected).abs() <= sigmas * error + 1e-9).all()


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("d", [2, 3, 5])
def test_shapes(make, batch, d, unit):
    law = make(unit(*batch, d), torch.full(batch, 3.0, dtype=torch.float64))
    assert law.batch_shape == batch and law.event_shape == (d,) and law.has_rsample and not law.has_enumerate_support
    assert law.mean.shape == law.variance.shape == law.stddev.shape == (*batch, d)
    assert law.entropy().shape == law.perplexity().shape == batch and law.covariance_matrix.shape == (*batch, d, d)
    for shape in SAMPLES:
        z = law.rsample(torch.Size(shape))
        assert z.shape == law.sample(torch.Size(shape)).shape == (*shape, *batch, d) and z.dtype == torch.float64
        assert law.log_prob(z).shape == (*shape, *batch) and law.log_prob(z).dtype == torch.float64
    other = make(unit(d), torch.tensor(3.0, dtype=torch.float64))
    assert other.log_prob(unit(7, 1, d)).shape == (7, 1)


def test_parameters_broadcast(directed, unit):
    assert directed(unit(4), 3.0).batch_shape == directed(unit(4), 3).batch_shape == ()
    assert directed(unit(1, 4), torch.ones(6)).batch_shape == directed(unit(6, 4), 1.0).batch_shape == (6,)
    law = directed(unit(3, 4), torch.ones(2, 1))
    assert law.batch_shape == (2, 3) and law.loc.shape == law.mode.shape == (2, 3, 4) and law.concentration.shape == (2, 3)
    assert law.concentration.dtype == law.loc.dtype and law.dim == 4


@pytest.mark.parametrize("kappa", [0.0, 1.0, 4.0, 60.0, 900.0])
def test_density_integrates_to_one_by_quadrature(make, kappa):
    kappa = torch.tensor(kappa, dtype=torch.float64)
    angle = 2 * math.pi * torch.arange(4096, dtype=torch.float64) / 4096
    circle = torch.stack([angle.cos(), angle.sin()], -1)
    law = make(torch.tensor([0.6, -0.8], dtype=torch.float64), kappa)
    assert law.log_prob(circle).exp().mean() * 2 * math.pi == pytest.approx(1, abs=1e-11)
    nodes, weights = map(torch.tensor, np.polynomial.legendre.leggauss(128))
    ring = torch.cat([(1 - nodes**2).sqrt()[:, None, None] * circle[::16], nodes[:, None, None].expand(-1, 256, 1)], -1)
    law = make(torch.tensor([0.48, 0.64, 0.6], dtype=torch.float64), kappa)
    total = (law.log_prob(ring).exp().mean(-1) * weights).sum() * 2 * math.pi
    assert total == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize("d, kappa", [(4, 0.7), (5, 12.0), (16, 9.0), (64, 20.0)])
def test_density_integrates_to_one_by_monte_carlo(make, d, kappa, unit):
    law, uniform = make(unit(d), torch.tensor(kappa, dtype=torch.float64)), ts.HypersphericalUniform(d, dtype=torch.float64)
    z = uniform.sample((200_000,))
    within((law.log_prob(z) - uniform.log_prob(z)).exp(), 1)


@pytest.mark.parametrize("d", [2, 3, 5, 64])
def test_moments_and_entropy(make, d, unit):
    law = make(unit(2, 3, d), KAPPAS)
    z = law.sample((20_000 if d < 64 else 4000,))
    within(z, law.mean)
    centred = z - law.mean
    if d < 64:
        within(torch.einsum("nabi,nabj->nabij", centred, centred), law.covariance_matrix, 6)
    within(centred.square(), law.variance, 6)
    torch.testing.assert_close(law.variance, law.covariance_matrix.diagonal(dim1=-2, dim2=-1))
    torch.testing.assert_close(law.stddev, law.variance.sqrt())
    within(-law.log_prob(z), law.entropy())
    torch.testing.assert_close(law.perplexity(), law.entropy().exp())


def test_mode_is_the_maximum(directed, unit):
    law = directed(unit(2, 3, 5), KAPPAS)
    assert torch.equal(law.mode, law.loc)
    assert (law.log_prob(law.mode) >= law.log_prob(law.sample((100,)))).all()


def resultant(law, d, k):
    """E w and its derivative."""
    if law is ts.VonMisesFisher:
        return ts.vmf_mean_resultant(k, d), ts.vmf_variance(k, d)
    return k / (d - 1 + k), (d - 1) / (d - 1 + k) ** 2


@pytest.mark.parametrize("d", [2, 3, 8, 64])
def test_gradients_of_draws_have_the_closed_forms_as_means(directed, d, unit):
    """d/dkappa E z = A' mu, d/dkappa E (a.z)^2 by the covariance, d/dmu E a.z = A P_mu a."""
    n, a = 20_000, unit(d, seed=3)
    mu, k = unit(d).expand(n, d).clone().requires_grad_(), torch.full((n,), 7.0, dtype=torch.float64, requires_grad=True)
    z = directed(mu, k, validate_args=False).rsample()
    A, slope = resultant(directed, d, k.detach()[0])
    (by_kappa,) = torch.autograd.grad((z * mu.detach()).sum(), k, retain_graph=True)
    within(by_kappa, slope)
    (by_mu,) = torch.autograd.grad((z @ a).sum(), mu, retain_graph=True)
    m = mu.detach()[0]
    tangent = lambda g: g - (g @ m)[..., None] * m  # noqa: E731
    within(tangent(by_mu), A * tangent(a))
    (by_kappa,) = torch.autograd.grad((z @ a).square().sum(), k)
    one = k.detach()[0].clone().requires_grad_()
    law = directed(m, one)
    (expected,) = torch.autograd.grad(a @ law.covariance_matrix @ a + (law.mean @ a) ** 2, one)
    within(by_kappa, expected)


def test_gradients_of_functions(directed, unit):
    loc, k = unit(3, 6).requires_grad_(), torch.tensor([0.5, 9.0, 80.0], dtype=torch.float64, requires_grad=True)
    value = unit(3, 6, seed=4).requires_grad_()
    unit_of = lambda x: torch.nn.functional.normalize(x, dim=-1)  # noqa: E731
    build = lambda loc, k: directed(unit_of(loc), k, validate_args=False)  # noqa: E731
    checks = {
        "log_prob": lambda loc, k: build(loc, k).log_prob(value),
        "entropy": lambda loc, k: build(loc, k).entropy(),
        "covariance": lambda loc, k: build(loc, k).covariance_matrix,
        "mean": lambda loc, k: build(loc, k).mean,
        "to uniform": lambda loc, k: kl_divergence(build(loc, k), ts.HypersphericalUniform(6)),
        "from uniform": lambda loc, k: kl_divergence(ts.HypersphericalUniform(6), build(loc, k)),
        "to vmf": lambda loc, k: kl_divergence(build(loc, k), ts.VonMisesFisher(unit_of(loc.flip(0)), k.flip(0))),
    }
    for check in checks.values():
        assert torch.autograd.gradcheck(check, (loc, k))
        assert torch.autograd.gradgradcheck(check, (loc, k), fast_mode=True)
    assert torch.autograd.gradcheck(lambda v: build(loc, k).log_prob(v), value)


def test_gradients_at_zero(directed, unit):
    """Where the law is uniform all derivatives exist; the second one of the divergence is that of k A, A' = Var w = 1/d or 1/(d - 1)."""
    for d in (2, 3, 6):
        k = torch.zeros((), dtype=torch.float64, requires_grad=True)
        law, uniform = directed(unit(d), k), ts.HypersphericalUniform(d, dtype=torch.float64)
        assert kl_divergence(law, uniform).item() == pytest.approx(0, abs=1e-12)
        (slope,) = torch.autograd.grad(kl_divergence(law, uniform), k, create_graph=True)
        assert slope.item() == pytest.approx(0, abs=1e-12)
        bent = torch.autograd.grad(slope, k)[0].item()
        assert bent == pytest.approx(1 / d, rel=1e-9) if directed is ts.VonMisesFisher else bent > 0
        assert torch.autograd.grad(law.covariance_matrix.square().sum(), k)[0].isfinite()
        assert torch.autograd.grad(law.rsample((50,)).sum(), k)[0].isfinite()


PAIRS = [p for p in itertools.product(LAWS, LAWS) if p not in [("vmf", "power"), ("power", "power")]]


@pytest.mark.parametrize("p, q", PAIRS)
def test_divergences(p, q, unit):
    p = LAWS[p](unit(2, 3, 5), KAPPAS)
    q = LAWS[q](unit(2, 3, 5, seed=9), torch.tensor([[0.0, 2.0, 3.0]], dtype=torch.float64))
    kl = kl_divergence(p, q)
    z = p.sample((20_000,))
    within(p.log_prob(z) - q.log_prob(z), kl)
    assert kl.shape == (2, 3) and kl.dtype == torch.float64 and (kl >= -1e-12).all()
    assert kl_divergence(p.expand((4, 2, 3)), q).shape == (4, 2, 3)
    with pytest.raises(ValueError, match="one dimension, got 5 and 4"):
        kl_divergence(p, ts.HypersphericalUniform(4))
    with pytest.raises(ValueError, match="one dimension, got 4 and 5"):
        kl_divergence(ts.HypersphericalUniform(4), q)


def test_divergences_without_a_closed_form_are_not_registered(unit):
    for p, q in [("vmf", "power"), ("power", "power")]:
        with pytest.raises(NotImplementedError):
            kl_divergence(LAWS[p](unit(4), torch.tensor(1.0)), LAWS[q](unit(4), torch.tensor(1.0)))


def test_divergence_of_nearly_equal_concentrated_laws(unit):
    """In float32, where each log normaliser alone has lost the digits of the difference: (d - 1)/2 (x - 1 - log x), x = k_q / k_p."""
    loc = unit(8, dtype=torch.float32)
    kl = kl_divergence(ts.VonMisesFisher(loc, 1e6), ts.VonMisesFisher(loc, 1.1e6))
    assert kl.item() == pytest.approx(3.5 * (1.1 - 1 - math.log(1.1)), rel=1e-4)


@pytest.mark.parametrize("name", LAWS)
def test_expand(name, unit):
    law = LAWS[name](unit(2, 3, 5), KAPPAS, validate_args=False)
    big = law.expand((4, 2, 3))
    assert type(big) is type(law) and big.batch_shape == (4, 2, 3) and big.event_shape == (5,) and big._validate_args is False
    z = big.sample((6,))
    assert z.shape == (6, 4, 2, 3, 5)
    for f in (lambda x: x.log_prob(z), lambda x: x.entropy(), lambda x: x.mean, lambda x: x.variance, lambda x: x.covariance_matrix):
        torch.testing.assert_close(f(big), f(law).expand(f(big).shape))
    assert big.expand((2, 4, 2, 3)).batch_shape == (2, 4, 2, 3)
    if name != "uniform":
        with pytest.raises(RuntimeError, match="must match the existing size"):
            LAWS[name](unit(3, 5), torch.ones(3)).expand((4,))

    class Own(type(law)):
        def __init__(self):
            super().__init__(*((5,) if name == "uniform" else (unit(5), 1.0)))

    with pytest.raises(NotImplementedError, match="must also define a custom"):
        Own().expand((2,))


def test_support_and_constraints(make, unit):
    law = make(unit(2, 3, 5), KAPPAS)
    assert law.support.event_dim == 1 and not law.support.is_discrete
    assert law.support.check(law.sample((50,))).all() and not law.support.check(torch.ones(5))
    assert not law.support.check(torch.full((5,), math.nan))
    assert constraints.nonnegative.check(KAPPAS).all() and repr(law.support) == "UnitSphere()"
    for outside in (torch.ones(5, dtype=torch.float64), unit(4), torch.full((5,), math.nan)):
        with pytest.raises(ValueError):
            law.log_prob(outside)
    with pytest.raises(ValueError):
        law.log_prob([1.0, 0, 0, 0, 0])
    for call in (law.enumerate_support, lambda: law.cdf(unit(5)), lambda: law.icdf(unit(5))):
        with pytest.raises(NotImplementedError):
            call()


def test_invalid_arguments(directed):
    name = directed.__name__
    for loc, k in [(torch.ones(3), 1.0), (torch.eye(3)[0], -1.0), (torch.eye(3)[0], math.nan), (torch.full((3,), math.nan), 1.0)]:
        with pytest.raises(ValueError, match="to satisfy the constraint"):
            directed(loc, torch.tensor(k), validate_args=True)
        directed(loc, torch.tensor(k), validate_args=False)
    for loc in (torch.tensor(1.0), torch.ones(3, 1), [1.0, 0.0]):
        with pytest.raises(ValueError, match=f"{name}: loc: expected a tensor"):
            directed(loc, 1.0)
    for k in (None, "high"):
        with pytest.raises(ValueError, match=f"{name}: concentration: expected a tensor or a number, got {k!r}"):
            directed(torch.eye(3), k)
    with pytest.raises(ValueError, match=f"{name}: loc: expected a floating dtype, got torch.int64"):
        directed(torch.tensor([1, 0]), 1.0)
    with pytest.raises(ValueError, match=f"{name}: concentration: expected a shape that broadcasts"):
        directed(torch.eye(3), torch.ones(2))
    with pytest.raises(ValueError, match=f"{name}: concentration: expected device cpu as loc, got meta"):
        directed(torch.eye(3), torch.ones(3, device="meta"))


def test_infinite_concentrations(unit):
    """A von Mises-Fisher law is then its mean direction; a Power Spherical law is refused."""
    law = ts.VonMisesFisher(unit(3), math.inf)
    assert torch.equal(law.sample((2,)), law.loc.expand(2, 3)) and torch.equal(law.mean, law.loc)
    assert law.entropy() == -math.inf and (law.variance == 0).all()
    k, other = torch.tensor(2.0, dtype=torch.float64, requires_grad=True), ts.VonMisesFisher(-law.loc, math.inf)
    wide, power = ts.VonMisesFisher(law.loc, k), ts.PowerSpherical(law.loc, k)
    assert law.log_prob(law.loc) == math.inf and law.log_prob(-law.loc) == -math.inf
    assert kl_divergence(law, law) == 0 and all(kl_divergence(p, law) == math.inf for p in (other, wide, power))
    both = kl_divergence(wide, ts.VonMisesFisher(law.loc, torch.tensor([3.0, math.inf], dtype=torch.float64)))
    both[0].backward()
    assert both[1] == math.inf and k.grad.isfinite()
    with pytest.raises(ValueError, match=r"FiniteNonnegative\(\)"):
        ts.PowerSpherical(unit(3), math.inf)


def test_invalid_uniform():
    for dim in (1, 2.0, None):
        with pytest.raises(ValueError, match="dim: expected an integer >= 2"):
            ts.HypersphericalUniform(dim)


def test_uniform_values(unit):
    u = ts.HypersphericalUniform(3, (2,), dtype=torch.float64)
    assert u.entropy()[0].item() == pytest.approx(math.log(4 * math.pi)) and (u.mean == 0).all()
    torch.testing.assert_close(u.covariance_matrix, torch.eye(3, dtype=torch.float64).expand(2, 3, 3) / 3)
    assert repr(u) == "HypersphericalUniform(dim: 3, batch_shape: (2,))"
    z = unit(7, 1, 3).requires_grad_()
    assert u.log_prob(z).shape == (7, 2) and (torch.autograd.grad(u.log_prob(z).sum(), z)[0] == 0).all()


def test_copies_and_pickles(make, unit):
    law = make(unit(2, 3, 5), KAPPAS)
    for other in (copy.copy(law), copy.deepcopy(law), pickle.loads(pickle.dumps(law))):
        z = unit(5, seed=2)
        assert type(other) is type(law) and torch.equal(other.log_prob(z), law.log_prob(z)) and other.batch_shape == law.batch_shape
        torch.manual_seed(3)
        first = law.sample((2,))
        torch.manual_seed(3)
        assert torch.equal(other.sample((2,)), first)
    assert repr(law).startswith(type(law).__name__ + "(")


def test_wrappers_of_torch(make, unit):
    law = make(unit(2, 3, 5), KAPPAS)
    whole = Independent(law, 1)
    z = whole.rsample((4,))
    assert whole.batch_shape == (2,) and whole.event_shape == (3, 5) and whole.log_prob(z).shape == (4, 2)
    torch.testing.assert_close(whole.entropy(), law.entropy().sum(-1))
    if not isinstance(law, ts.PowerSpherical):
        assert kl_divergence(whole, Independent(make(unit(2, 3, 5), KAPPAS), 1)).abs().max() < 1e-9
    mixture = MixtureSameFamily(Categorical(torch.ones(2, 3)), law)
    assert mixture.sample((4,)).shape == (4, 2, 5) and mixture.log_prob(mixture.sample((4,))).shape == (4, 2)
    torch.testing.assert_close(mixture.mean, law.mean.mean(-2))


def test_samples_carry_no_gradient(directed, unit):
    law = directed(unit(4).requires_grad_(), torch.tensor(2.0, requires_grad=True))
    assert not law.sample((3,)).requires_grad and law.rsample((3,)).requires_grad


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=str)
def test_half_types(make, half, unit):
    loc, k = unit(6, 64).to(half), torch.tensor([0.0, 1e-3, 1.0, 10.0, 100.0, 1000.0]).to(half)
    law = make(loc, k, validate_args=True)
    z = law.rsample((8,))
    assert z.dtype == half and law.support.check(z).all()
    kl = kl_divergence(law, ts.HypersphericalUniform(64))
    for x in (law.log_prob(z), law.entropy(), law.mean, law.variance, law.covariance_matrix, kl):
        assert x.isfinite().all() and x.dtype == half


def test_the_default_dtype_does_not_decide(make, unit):
    law = make(unit(3, 8).float(), torch.ones(3))
    z = law.sample()
    torch.set_default_dtype(torch.float64)
    try:
        assert law.log_prob(z).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_concentration_that_is_no_number_draws_none(unit):
    """torch's gamma draws return numbers."""
    draws = ts.PowerSpherical(unit(2, 4), torch.tensor([1.0, math.nan]).double(), validate_args=False).sample()
    assert draws.isnan().all(-1).tolist() == [False, True]


@pytest.mark.parametrize("d", [2, 3, 32, 512, 4096])
def test_high_dimensions_and_concentrations_in_float32(make, d, unit):
    k = torch.tensor([0.0, 1e-12, 1e-3, 1.0, 100.0, 1e4, 1e6])
    loc = unit(7, d, dtype=torch.float32)
    law, exact = make(loc, k, validate_args=True), make(loc.double(), k.double(), validate_args=True)
    z = law.rsample((16,))
    assert (z.double().norm(dim=-1) - 1).abs().max() < 1e-6
    for f in (lambda x: x.entropy(), lambda x: x.mean, lambda x: x.variance, lambda x: kl_divergence(x, ts.HypersphericalUniform(d, (7,)))):
        torch.testing.assert_close(f(law).double(), f(exact).double(), rtol=1e-5, atol=1e-6)
    assert law.log_prob(z).isfinite().all()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_compile(make, unit):
    """Traced whole; what is not drawn equals the eager result."""
    loc, k = unit(6, 16, dtype=torch.float32).requires_grad_(), torch.full((6,), 20.0, requires_grad=True)

    def functions(loc, k, z):
        law = make(loc, k, validate_args=False)
        return law.log_prob(z), law.entropy(), law.mean, law.covariance_matrix, kl_divergence(law, ts.HypersphericalUniform(16))

    z = unit(6, 16, seed=5, dtype=torch.float32)
    compiled = torch.compile(functions, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(loc, k, z), functions(loc, k, z))
    draw = torch.compile(lambda loc, k: make(loc, k, validate_args=False).rsample((3,)), fullgraph=True, backend="aot_eager")
    assert draw(loc, k).shape == (3, 6, 16) and not torch.equal(draw(loc, k), draw(loc, k))
