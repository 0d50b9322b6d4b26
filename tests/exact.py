"""Functions of kappa to many digits, by another route than the library's: the series of 0F1, all of whose terms are positive."""

import functools

import mpmath as mp

DIGITS = 90


@functools.cache
def cumulants(d: int, kappa: float) -> tuple:
    """Lambda = log E exp(kappa w) and its first four derivatives, as mpf.

    exp(Lambda) = sum_j (k^2/4)^j / (j! (d/2)_j). With X = 2j drawn by these terms, the j-th cumulant of X is (k d/dk)^j Lambda.
    """
    if kappa == 0:
        return mp.mpf(0), mp.mpf(0), mp.mpf(1) / d, mp.mpf(0), mp.mpf(-6) / (d * d * (d + 2))
    with mp.workdps(DIGITS):
        k, nu = mp.mpf(kappa), mp.mpf(d) / 2 - 1
        x = k * k / 4
        top = int((mp.sqrt(nu * nu + k * k) - nu) / 2)  # the largest term
        log_top = top * mp.log(x) - mp.loggamma(top + 1) - mp.loggamma(nu + 1 + top) + mp.loggamma(nu + 1)
        one = 1 << (mp.mp.prec + 40)
        numerator, denominator = map(int, (mp.floor(mp.ldexp(x, mp.mp.prec)), mp.ldexp(1, mp.mp.prec)))
        twice_nu = d - 2
        sums = [0] * 5
        for step in (1, -1):
            term, j = one, top
            if step < 0:
                term, j = term * j * (2 * j + twice_nu) * denominator // (2 * numerator), j - 1
            while term and j >= 0:
                for m in range(5):
                    sums[m] += term * (2 * (j - top)) ** m
                if step > 0:
                    j += 1
                    term = term * numerator * 2 // (denominator * j * (2 * j + twice_nu))
                else:
                    term, j = term * j * (2 * j + twice_nu) * denominator // (2 * numerator), j - 1
        m1, m2, m3, m4 = (mp.mpf(s) / sums[0] for s in sums[1:])
        k1, k2, k3 = 2 * top + m1, m2 - m1**2, m3 - 3 * m1 * m2 + 2 * m1**3
        k4 = m4 - 4 * m1 * m3 - 3 * m2**2 + 12 * m1**2 * m2 - 6 * m1**4
        A = k1 / k
        A1 = (k2 - k1) / k**2
        A2 = (k3 - k1 - 3 * k**2 * A1) / k**3
        A3 = (k4 - k1 - 7 * k**2 * A1 - 6 * k**3 * A2) / k**4
        return log_top + mp.log(mp.mpf(sums[0]) / one), A, A1, A2, A3


def log_area(d: int) -> mp.mpf:
    with mp.workdps(DIGITS):
        return mp.log(2) + mp.mpf(d) / 2 * mp.log(mp.pi) - mp.loggamma(mp.mpf(d) / 2)
