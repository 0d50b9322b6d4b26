"""Elementary functions that Triton lacks, and sin and cos, which its libraries compute with a stack frame, for the sake of large arguments.
The float32 polynomials are those of csrc/fastmath.h; the float64 ones are Taylor's, whose remainder on [-pi/4, pi/4] is below 2^-56."""

import triton
import triton.language as tl


@triton.jit
def log1p(x):
    """float64, x > -1, by Kahan's quotient."""
    u = 1.0 + x
    exact = u == 1.0
    return tl.where(exact, x, tl.log(u) * (x / tl.where(exact, 1.0, u - 1.0)))


@triton.jit
def expm1(x):
    """float64, x <= 0, -infinity too, by Kahan's quotient."""
    u = tl.exp(x)
    inside = (u < 1.0) & (u > 5e-17)
    safe = tl.where(inside, u, 0.5)
    return tl.where(inside, (safe - 1.0) * (x / tl.log(safe)), tl.where(u < 1.0, -1.0, x))


@triton.jit
def hypot(x, y):
    """float64, finite, not both 0, without overflow, and right to the last digit where one is much larger."""
    large, small = tl.maximum(tl.abs(x), tl.abs(y)), tl.minimum(tl.abs(x), tl.abs(y))
    ratio = small / large
    return large + small * (ratio / (1.0 + tl.sqrt(1.0 + ratio * ratio)))


@triton.jit
def _sine_octant(x):
    """float64, |x| <= pi/4."""
    t = x * x
    p = t * 2.8114572543455206e-15 - 7.647163731819816e-13
    p = p * t + 1.6059043836821613e-10
    p = p * t - 2.505210838544172e-08
    p = p * t + 2.7557319223985893e-06
    p = p * t - 0.0001984126984126984
    p = p * t + 0.008333333333333333
    p = p * t - 0.16666666666666666
    return x + x * (t * p)


@triton.jit
def _cosine_octant(x):
    """float64, |x| <= pi/4."""
    t = x * x
    p = t * 4.779477332387385e-14 - 1.1470745597729725e-11
    p = p * t + 2.08767569878681e-09
    p = p * t - 2.755731922398589e-07
    p = p * t + 2.48015873015873e-05
    p = p * t - 0.001388888888888889
    p = p * t + 0.041666666666666664
    return 1.0 + t * (p * t - 0.5)


@triton.jit
def _by_quarter(q, s, c):
    """sin and cos of an angle from those, s and c, of its distance to the nearest of q quarter turns."""
    odd = (q & 1) == 1
    sine, cosine = tl.where(odd, c, s), tl.where(odd, s, c)
    return tl.where((q & 2) == 2, -sine, sine), tl.where(((q + 1) & 2) == 2, -cosine, cosine)


@triton.jit
def sincos(x):
    """float64, |x| of a few turns at most; pi/2 is taken off in two parts."""
    quarters = tl.floor(x * 0.6366197723675814 + 0.5)
    r = (x - quarters * 1.5707963267341256) - quarters * 6.077100506506192e-11
    return _by_quarter(quarters.to(tl.int32), _sine_octant(r), _cosine_octant(r))


@triton.jit
def sincos_midpoint(u):
    """sin and cos of 2 pi (u + 2^-25), u a multiple of 2^-24 in [0, 1): the middle of u's cell, so that neither is ever 0."""
    q = (4.0 * u + 0.5).to(tl.int32)
    r = (u - 0.25 * q.to(u.dtype)) + 2.9802322387695312e-08  # exact
    if u.dtype == tl.float64:
        x = r * 6.283185307179586
        return _by_quarter(q, _sine_octant(x), _cosine_octant(x))
    else:
        t = r * r
        s = t * -75.4020678 + 81.5925535
        s = s * t - 41.3416626
        s = (s * t + 6.28318529) * r
        c = t * 59.2204071 - 85.4428521
        c = c * t + 64.9393162
        c = c * t - 19.7392087
        c = c * t + 1.0
        return _by_quarter(q, s, c)


@triton.jit
def angle_turns(x, y):
    """The angle of (x, y) in turns, in [0, 1); 0 at the origin, NaN for NaN."""
    ax, ay = tl.abs(x), tl.abs(y)
    high, low = tl.maximum(ax, ay), tl.minimum(ax, ay)
    a = low / tl.where(high > 0.0, high, 1.0)
    t = a * a
    p = t * 0.000462109157 - 0.0025914991
    p = p * t + 0.00684989259
    p = p * t - 0.0119901881
    p = p * t + 0.016957432
    p = p * t - 0.0226113521
    p = p * t + 0.0318199335
    p = p * t - 0.0530512667
    p = (p * t + 0.159154941) * a
    if x.dtype == tl.float64:  # the polynomial is right to 4e-8; one step of atan's addition theorem squares that
        angle = p * 6.283185307179586
        s, c = _sine_octant(angle), _cosine_octant(angle)
        p += (a * c - s) / (c + a * s) * 0.15915494309189535
    p = tl.where(ay > ax, 0.25 - p, p)
    p = tl.where(x < 0.0, 0.5 - p, p)
    p = tl.where(y < 0.0, 1.0 - p, p)
    p = tl.where(p >= 1.0, 0.0, p)
    return tl.where(x + y == x + y, p, x + y)
