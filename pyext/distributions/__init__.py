"""Distributions on the unit sphere, as `torch.distributions`."""

from .hyperspherical_uniform import HypersphericalUniform
from .power_spherical import PowerSpherical
from .von_mises_fisher import VonMisesFisher

__all__ = ["HypersphericalUniform", "PowerSpherical", "VonMisesFisher"]
