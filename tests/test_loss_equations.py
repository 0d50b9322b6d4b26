"""The losses over points, and the baselines over distributions, against loops written from their equations in float64."""

import math

import pytest
import torch
from torch.nn.functional import normalize

import transphere as ts
from transphere import losses
from transphere.losses import _embeddings

NAMES = ("image", "text", "speech")
BATCH, DIM = 6, 5
GROUPS = torch.tensor([0, 1, 0, 2, 3, 1])


def points(names=NAMES, seed=0):
    g = torch.Generator().manual_seed(seed)
    return {name: torch.randn(BATCH, DIM, generator=g, dtype=torch.float64).requires_grad_() for name in names}


def laws(names=NAMES, seed=0, kappa=20.0):
    kappas = {name: (kappa + torch.arange(BATCH) + 3.0 * i).double().requires_grad_() for i, name in enumerate(names)}
    return {name: ts.VonMisesFisher(normalize(x, dim=-1), kappas[name]) for name, x in points(names, seed).items()}


def masks():
    return {"image": torch.tensor([1, 1, 0, 1, 1, 1]).bool(), "speech": torch.tensor([1, 0, 1, 1, 1, 0]).bool()}


class Batch:
    """What a loop needs to know of a batch: unit vectors as lists, who is there, which items are one."""

    def __init__(self, embeddings, present=None, groups=None, duplicates="ignore"):
        self.z = {n: normalize(e.loc if isinstance(e, ts.VonMisesFisher) else e, dim=-1).detach() for n, e in embeddings.items()}
        self.present, self.groups, self.duplicates = present or {}, groups, duplicates

    def pairs(self):
        names = list(self.z)
        return [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]

    def has(self, name, p):
        return name not in self.present or bool(self.present[name][p])

    def same(self, p, q):
        return p == q or (self.groups is not None and self.groups[p] == self.groups[q])

    def items(self, a, b):
        return [p for p in range(BATCH) if self.has(a, p) and self.has(b, p)]

    def columns(self, p, b):
        """Answers of row p among modality b."""
        every = [q for q in range(BATCH) if self.has(b, q)]
        return [q for q in every if q == p or not self.same(p, q)] if self.duplicates == "ignore" else every

    def right(self, p, a, b):
        if self.duplicates == "ignore":
            return [p]
        return [q for q in self.items(a, b) if self.same(p, q)]

    def cosine(self, a, b, p, q):
        return float(self.z[a][p] @ self.z[b][q])

    def mean_over_rows(self, row, pairs=None):
        """Mean over pairs of modalities, of which each counts both directions, of the mean over items of row(a, b, p)."""
        total = []
        for a, b in pairs or self.pairs():
            items = self.items(a, b)
            each = [0.5 * (row(a, b, p) + row(b, a, p)) for p in items]
            total.append(sum(each) / len(each) if len(each) >= 2 else 0.0)
        return sum(total) / len(total)


CASES = {
    "plain": dict(),
    "missing": dict(present=masks()),
    "ignore": dict(groups=GROUPS),
    "positive": dict(groups=GROUPS, duplicates="positive"),
    "missing, positive": dict(present=masks(), groups=GROUPS, duplicates="positive"),
    "missing, ignore": dict(present=masks(), groups=GROUPS),
}


@pytest.fixture(params=CASES)
def case(request):
    c = CASES[request.param]
    return c.get("present"), c.get("groups"), c.get("duplicates", "ignore")


def check(loss, embeddings, case, expected, rel=1e-10):
    present, groups, duplicates = case
    value, parts = loss(embeddings, present, groups)
    assert value.item() == pytest.approx(expected(Batch(embeddings, present, groups, duplicates)), rel=rel, abs=1e-12)
    assert value.shape == () and all(p.shape == () and not p.requires_grad for p in parts.values())
    return parts


def cross_entropy(b, tau):
    def row(a, c, p):
        denominator = sum(math.exp(b.cosine(a, c, p, q) / tau) for q in b.columns(p, c))
        right = b.right(p, a, c)
        return -sum(math.log(math.exp(b.cosine(a, c, p, q) / tau) / denominator) for q in right) / len(right)

    return b.mean_over_rows(row)


def test_contrastive(case):
    loss = losses.Contrastive(0.3, duplicates=case[2])
    check(loss, points(), case, lambda b: cross_entropy(b, 0.3))


def test_contrastive_learns_its_temperature():
    loss = losses.Contrastive(0.3, learnable=True)
    fixed = losses.Contrastive(0.3)
    assert not list(fixed.parameters()) and not fixed.state_dict() and loss.temperature == pytest.approx(0.3)
    value, _ = loss(points())
    torch.testing.assert_close(value, fixed(points())[0])
    value.backward()
    assert loss.log_scale.grad != 0
    with torch.no_grad():
        loss.log_scale.fill_(9.0)
    loss.project_()
    assert loss.temperature == pytest.approx(0.01, rel=1e-6)


def test_probabilistic_contrastive_is_contrastive_at_infinite_kappa(case):
    present, groups, duplicates = case
    x = points()
    value, _ = losses.ProbabilisticContrastive(0.3, 2, duplicates=duplicates)(x, present, groups)
    torch.testing.assert_close(value, losses.Contrastive(0.3, duplicates=duplicates)(x, present, groups)[0])


def test_harnessed_takes_groups():
    x = laws()
    torch.manual_seed(1)
    plain = losses.Harnessed()(x)[1]
    torch.manual_seed(1)
    grouped = losses.Harnessed(duplicates="positive")(x, None, GROUPS)[1]
    assert plain["sliced"] == grouped["sliced"] and plain["contrastive"] != grouped["contrastive"]


@pytest.mark.parametrize("form", ["paper", "elementwise"])
@pytest.mark.parametrize("rho", [0.0, 1.0])
def test_regression(case, form, rho):
    x = points()
    x["text"] = torch.cat([x["text"][:1], x["text"][:1] + 1e-4, x["text"][2:]]).detach().requires_grad_()      # the same caption twice

    def expected(b):
        total = []
        for a, c in b.pairs():
            cells = []
            for p in range(BATCH):
                for q in range(BATCH):
                    if not (b.has(a, p) and b.has(c, q)) or (b.duplicates == "ignore" and p != q and b.same(p, q)):
                        continue
                    twins = any(b.has(m, p) and b.has(m, q) and float(b.z[m][p] @ b.z[m][q]) > 0.99 for m in b.z)
                    alike = b.duplicates == "positive" and p in b.items(a, c) and q in b.items(a, c) and b.same(p, q)
                    cells.append(abs(b.cosine(a, c, p, q) - float(p == q or twins or alike)))
            total.append(sum(s**2 for s in cells) ** (1 + rho / 2) if form == "paper" else sum(s ** (2 + rho) for s in cells))
        return sum(total) / len(total)

    check(losses.Regression(rho, form=form, duplicates=case[2]), x, case, expected)


def test_regression_forms_agree_without_the_power():
    x = points()
    torch.testing.assert_close(losses.Regression(0.0)(x)[0], losses.Regression(0.0, form="elementwise")(x)[0])


@pytest.mark.parametrize("hardest", [True, False])
def test_triplet(case, hardest):
    def row(b):
        def one(a, c, p):
            right = b.right(p, a, c)
            positive = sum(b.cosine(a, c, p, q) for q in right) / len(right)
            wrong = [b.cosine(a, c, p, q) for q in b.columns(p, c) if q not in right]
            hinge = [max(0.0, 0.2 - positive + s) for s in wrong] or [0.0]
            return max(hinge) if hardest else sum(hinge) / len(hinge)

        return b.mean_over_rows(one)

    check(losses.Triplet(0.2, hardest, duplicates=case[2]), points(), case, row)


def test_entropic_contrastive(case):
    def entropy(b):
        def row(a, c, p):
            e = [math.exp(b.cosine(a, c, p, q) / 0.3) for q in b.columns(p, c)]
            return -sum(v / sum(e) * math.log(v / sum(e)) for v in e)

        return b.mean_over_rows(row)

    loss = losses.EntropicContrastive(0.4, 0.3, duplicates=case[2])
    parts = check(loss, points(), case, lambda b: cross_entropy(b, 0.3) - 0.4 * entropy(b))
    torch.testing.assert_close(parts["contrastive"], losses.Contrastive(0.3, duplicates=case[2])(points(), *case[:2])[0])


@pytest.mark.parametrize("form", ["kirchhof2023", "ismir2024"])
def test_mc_infonce(case, form):
    x, L, tau = laws(), 3, 0.3
    torch.manual_seed(5)
    z = dict(zip(x, _embeddings.draw(x, L).detach(), strict=True))                           # (batch, L, d) each

    def expected(b):
        def row(a, c, p):
            right = b.right(p, a, c)
            wrong = [q for q in b.columns(p, c) if q not in right]
            s = lambda q, sample: float(z[a][p, sample] @ z[c][q, sample]) / tau              # noqa: E731

            def of(q):
                shares = []
                for sample in range(L):
                    against = sum(math.exp(s(k, sample)) for k in wrong) / (len(wrong) if form == "kirchhof2023" else 1)
                    shares.append(math.exp(s(q, sample)) / (math.exp(s(q, sample)) + against))
                return -math.log(sum(shares) / L) if form == "kirchhof2023" else -sum(map(math.log, shares)) / L

            return sum(of(q) for q in right) / len(right)

        return b.mean_over_rows(row)

    torch.manual_seed(5)
    check(losses.MCInfoNCE(tau, L, form=form, duplicates=case[2]), x, case, expected)


def test_pcme(case):
    x, L = laws(), 3
    torch.manual_seed(5)
    z = dict(zip(x, _embeddings.draw(x, L).detach(), strict=True))

    def expected(b):
        def chance(a, c, p, q):
            d = [(z[a][p, i] - z[c][q, j]).norm().item() for i in range(L) for j in range(L)]
            return sum(1 / (1 + math.exp(4 * v - 3)) for v in d) / L**2

        match = []
        for a, c in b.pairs():
            items, right, wrong = b.items(a, c), [], []
            for p in [p for p in range(BATCH) if b.has(a, p)]:
                for q in b.columns(p, c):
                    if q in (b.right(p, a, c) if p in items else []):
                        right.append(-math.log(chance(a, c, p, q)))
                    elif p != q:
                        wrong.append(-math.log(1 - chance(a, c, p, q)))
            match.append(0.5 * (sum(right) / len(right) + sum(wrong) / len(wrong)))
        there = {m: [p for p in range(BATCH) if b.has(m, p)] for m in x}
        kl = [sum(float(ts.vmf_kl_uniform(x[m].concentration[p].detach(), DIM)) for p in there[m]) / len(there[m]) for m in x]
        draws = [z[m][p, i] for m in x for p in there[m] for i in range(L)]
        energy = [math.exp(-2 * float((s - t).square().sum())) for i, s in enumerate(draws) for j, t in enumerate(draws) if i != j]
        return sum(match) / len(match) + 0.1 * sum(kl) / len(kl) + 0.7 * math.log(sum(energy) / len(energy))

    torch.manual_seed(5)
    loss = losses.PCME(L, 4.0, 3.0, bottleneck=0.1, uniformity=0.7, duplicates=case[2])
    assert set(check(loss, x, case, expected, rel=1e-6)) == {"match", "bottleneck", "uniformity"}
    assert len(list(loss.parameters())) == 2


def test_mpc(case):
    x, L = laws(kappa=2.0), 3
    torch.manual_seed(5)
    centre = dict(zip(x, _embeddings.draw(x, L).detach().mean(2), strict=True))

    def expected(b):
        total = []
        for target in x:
            others = [m for m in x if m != target]
            for sources in [[m] for m in others] + [others]:
                rows = [p for p in range(BATCH) if b.has(target, p) and any(b.has(m, p) for m in sources)]
                each = []
                for p in rows:
                    eta = sum((x[m].concentration[p] * x[m].loc[p]).detach() for m in sources if b.has(m, p))
                    score = {q: float(eta @ centre[target][q]) for q in b.columns(p, target)}
                    right = [p] if b.duplicates == "ignore" else [q for q in score if b.same(p, q)]
                    each.append(math.log(sum(map(math.exp, score.values()))) - sum(score[q] for q in right) / len(right))
                total.append(sum(each) / len(each) if len(each) >= 2 else 0.0)
        spread = [0.25 * math.log(float(x[m].concentration[p].detach())) ** 2 for m in x for p in range(BATCH) if b.has(m, p)]
        return sum(total) / len(total) + 0.2 * sum(spread) / len(spread)

    torch.manual_seed(5)
    check(losses.MPC(L, penalty=0.2, duplicates=case[2]), x, case, expected)


def test_mmcosine():
    x, labels = points(), torch.tensor([0, 2, 1, 1, 0, 2])
    loss = losses.MMCosine(3, scale=4.0, modalities={name: DIM for name in x})
    present = masks()
    value, parts = loss(x, present, labels=labels)
    each = []
    for p in range(BATCH):
        here = [m for m in x if m not in present or present[m][p]]
        logit = [4 * sum(float(torch.cosine_similarity(x[m][p], loss.weight[m][c].double(), 0)) for m in here) for c in range(3)]
        each.append(math.log(sum(map(math.exp, logit))) - logit[labels[p]])
    assert value.item() == pytest.approx(sum(each) / BATCH, rel=1e-10)
    assert parts["accuracy"] == (loss.logits(x, present).argmax(1) == labels).double().mean()
    value.backward()
    assert all(w.grad.abs().sum() > 0 for w in loss.weight.values())


@pytest.mark.parametrize(
    ("bound", "M", "expected"), [("tight", 2, 5 / 12), ("paper", 2, 5 / 14), ("tight", 3, 5 / 18), ("paper", 3, 5 / 24)]
)
def test_mmcosine_bounds(bound, M, expected):
    x = {f"m{i}": torch.randn(2, 7) for i in range(M)}
    loss = losses.MMCosine(6, bound=bound)
    loss(x, labels=torch.tensor([0, 5]))
    cosines = sum(torch.cosine_similarity(v[:, None], loss.weight[n], -1) for n, v in x.items())
    torch.testing.assert_close(loss.logits(x), expected * math.log(5 * 0.99 / 0.01) * cosines)


@pytest.mark.parametrize("bound", ["tight", "paper"])
def test_which_mmcosine_bound_keeps_its_promise(bound):
    """Classes at the corners of a simplex, a feature at its class: the best case, in which the bound gives p."""
    C = 5
    corners = normalize(torch.eye(C).double() - 1 / C, dim=-1)
    loss = losses.MMCosine(C, bound=bound, modalities={"a": C, "b": C}).double()
    with torch.no_grad():
        for w in loss.weight.values():
            w.copy_(corners)
    p = loss.logits({"a": corners, "b": corners}).softmax(1).diagonal()
    assert (p - 0.99).abs().max() < 1e-12 if bound == "tight" else p.max() < 0.98


EVERY = {
    "Contrastive": losses.Contrastive(0.5),
    "Regression": losses.Regression(),
    "Regression elementwise": losses.Regression(form="elementwise"),
    "Triplet": losses.Triplet(hardest=False),
    "EntropicContrastive": losses.EntropicContrastive(0.1, 0.5),
    "MCInfoNCE": losses.MCInfoNCE(0.5, 2),
    "MCInfoNCE ismir2024": losses.MCInfoNCE(0.5, 2, form="ismir2024"),
    "PCME": losses.PCME(2, uniformity=0.5),
}


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("kind", ["plain", "missing, positive"])
def test_gradcheck(name, kind):
    case = CASES[kind]

    def f(*x):
        return EVERY[name](dict(zip(NAMES, x, strict=True)), case.get("present"), case.get("groups"))[0]

    assert torch.autograd.gradcheck(f, tuple(points().values()), fast_mode=True)


def test_gradcheck_mpc():
    """Its draws have a gradient of their own, which is not one of finite differences; in the limit they stand still."""
    loc, kappa = points(("a", "b")), torch.tensor(1e13, dtype=torch.float64)

    def f(x, y):
        embeddings = {"a": ts.VonMisesFisher(normalize(x, dim=-1), kappa), "b": ts.VonMisesFisher(normalize(y, dim=-1), kappa)}
        torch.manual_seed(0)
        return losses.MPC(1, temperature=1e13, penalty=0.0)(embeddings)[0]

    assert torch.autograd.gradcheck(f, tuple(loc.values()), fast_mode=True, atol=1e-4)


SIMPLE = [losses.Contrastive(), losses.Regression(), losses.Triplet(), losses.EntropicContrastive(0.1), losses.MCInfoNCE(), losses.PCME()]
SIMPLE += [losses.MPC(), losses.ProbabilisticContrastive(), losses.Harnessed()]


@pytest.mark.parametrize("loss", SIMPLE, ids=lambda m: type(m).__name__)
def test_what_all_share(loss):
    """float32 within autocast from half inputs; finite gradients where nothing is there or all is one; errors."""
    half = {n: ts.VonMisesFisher(e.loc.bfloat16(), e.concentration.bfloat16(), validate_args=False) for n, e in laws().items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert loss(half)[0].dtype == torch.float32
    nobody, one = ({"text": mask} for mask in (torch.zeros(BATCH).bool(), torch.arange(BATCH) == 2))
    for present, groups in [(nobody, None), (None, torch.zeros(BATCH).long()), (one, GROUPS)]:
        x = points()
        embeddings = {n: ts.VonMisesFisher(normalize(v, dim=-1), torch.full((BATCH,), 9.0).double()) for n, v in x.items()}
        value, _ = loss(embeddings, present, groups)
        value.backward()
        assert value.isfinite() and all(v.grad.isfinite().all() for v in x.values())
        if present:
            absent = ~present["text"]
            assert (x["text"].grad[absent].abs() < 1e-12).all()
    with pytest.raises(ValueError, match=r"groups: expected whole numbers of shape \(6,\), got torch.float32"):
        loss(laws(), None, torch.zeros(BATCH))
    there = {"text": torch.arange(BATCH) != 2}
    values, gradients = [], []
    for absent in (0.0, math.nan):  # nothing of what is absent reaches the others
        x = points()
        x["text"] = torch.where(there["text"][:, None], x["text"], absent).detach().requires_grad_()
        kappa = torch.full((BATCH,), 9.0).double()
        given = {n: ts.VonMisesFisher(normalize(v, dim=-1), kappa, validate_args=False) for n, v in x.items()}
        torch.manual_seed(1)
        value, _ = loss(given, there)
        values.append(value)
        gradients.append(torch.autograd.grad(value, [v for n, v in x.items() if n != "text"]))
    assert values[0] == values[1] and all(map(torch.equal, *gradients))
    with pytest.raises(ValueError, match="duplicates: expected one of"):
        type(loss)(**({"eps": 1.0} if isinstance(loss, losses.EntropicContrastive) else {}), duplicates="keep")
    with pytest.raises(ValueError, match="expected at least two modalities"):
        loss({"image": laws()["image"]})


def test_bad_arguments():
    for make, message in [
        (lambda: losses.Contrastive(0), "temperature: expected a number > 0"),
        (lambda: losses.Regression(-1), "rho: expected a number >= 0"),
        (lambda: losses.Regression(form="mean"), "form: expected one of"),
        (lambda: losses.Triplet(-1), "margin: expected a number >= 0"),
        (lambda: losses.EntropicContrastive(1, 0), "temperature: expected"),
        (lambda: losses.MCInfoNCE(form="x"), "form: expected one of"),
        (lambda: losses.MCInfoNCE(0), "temperature: expected"),
        (lambda: losses.MPC(temperature=0), "temperature: expected"),
        (lambda: losses.MPC()(points()), "image: expected a VonMisesFisher, got Tensor"),
        (lambda: losses.MMCosine(1), "classes: expected an integer >= 2"),
        (lambda: losses.MMCosine(3, scale=0), "scale: expected a number > 0"),
        (lambda: losses.MMCosine(3, bound="x"), "bound: expected one of"),
        (lambda: losses.MMCosine(3, probability=0.2), "probability: expected a number between"),
        (lambda: losses.MMCosine(3, modalities={"image": 4})(points(), labels=GROUPS), "image: expected features of width 4, got 5"),
        (lambda: losses.MMCosine(3, modalities={"image": 5})(points(), labels=GROUPS), "text: expected a modality among"),
        (lambda: losses.MMCosine(4)(points(), labels=torch.zeros(3).long()), "labels: expected whole numbers of shape"),
        (lambda: losses.MMCosine(4)({}, labels=GROUPS), "at least one modality"),
        (lambda: losses.MMCosine(4)(points(), labels=torch.full((BATCH,), 4)), "labels: expected classes from 0 to 3, got 4"),
        (lambda: losses.MMCosine(4)(points(), {"smell": torch.ones(BATCH).bool()}, labels=GROUPS), "present: expected modalities among"),
        (lambda: losses.ProbabilisticContrastive(n_samples=0), "n_samples: expected an integer >= 1, got 0"),
        (lambda: losses.SphericalSliced(0), "n_projections: expected an integer >= 1, got 0"),
        (lambda: losses.Harnessed(max_grad=0), "max_grad: expected a positive number"),
        (lambda: losses.PCME(0), "n_samples: expected an integer >= 1"),
        (lambda: losses.MMCosine(4)({"a": torch.ones(2, 3), "b": torch.ones(3, 3)}, labels=GROUPS), "b: expected features of shape"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()
