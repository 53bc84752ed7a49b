"""Distance basis and radial functions of edge lengths."""

from torch import Tensor

from ._register import compiled, depends_on, fake, twice_differentiable


def radial_basis(
    distance: Tensor, frequency: Tensor, roots: Tensor, scale: Tensor, cutoff: float, envelope_exponent: int
) -> tuple[Tensor, Tensor]:
    """Distance basis and radial functions of edge lengths (the radial parts of the paper's Eqs. 4, 5 and 6).

        bessel[e, n] = u(x) sin(frequency[n] x),   radial[e, l, n] = scale[l, n] j_l(roots[l, n] x)

    with x = distance / cutoff and the envelope u(x) = 1/x + a x^(p-1) + b x^p + c x^(p+1), p = envelope_exponent + 1,
    which is 0 from x = 1 on.

    distance [E], in the unit of cutoff; frequency [K], K <= 16; roots, scale [L, K] constants, L <= 8.
    Returns bessel [E, K] and radial [E, L, K], differentiable in distance and frequency.
    """
    return compiled.radial_basis(
        distance, frequency, roots.double(), scale.double(), float(cutoff), int(envelope_exponent)
    )


@fake("radial_basis")
def _(distance, frequency, roots, scale, cutoff, envelope_exponent):
    edges = distance.shape[0]
    return distance.new_empty(edges, frequency.shape[0]), distance.new_empty(edges, *roots.shape)


@fake("radial_basis_backward")
def _(grad_bessel, grad_radial, distance, frequency, roots, scale, cutoff, envelope_exponent):
    return distance.new_empty(distance.shape), frequency.new_empty(frequency.shape)


@fake("radial_basis_double_backward")
def _(grad_grad_distance, grad_grad_frequency, grad_bessel, grad_radial, distance, frequency, roots, scale, cutoff, p):
    return (
        grad_bessel.new_empty(grad_bessel.shape),
        grad_radial.new_empty(grad_radial.shape),
        distance.new_empty(distance.shape),
        frequency.new_empty(frequency.shape),
    )


def _radial_basis_backward(ctx, grad_bessel, grad_radial):
    distance, frequency, roots, scale = ctx.saved_tensors
    edges, constants = distance.shape[0], ctx.numbers
    if grad_bessel is None:
        grad_bessel = distance.new_zeros(edges, frequency.shape[0])
    if grad_radial is None:
        grad_radial = distance.new_zeros(edges, *roots.shape)
    grads = compiled.radial_basis_backward(grad_bessel, grad_radial, distance, frequency, roots, scale, *constants)
    return *grads, None, None, None, None


def _radial_basis_double_backward(ctx, grad_grad_distance, grad_grad_frequency):
    if grad_grad_distance is None and grad_grad_frequency is None:
        return (None,) * 8
    grads = compiled.radial_basis_double_backward(
        grad_grad_distance, grad_grad_frequency, *ctx.saved_tensors, *ctx.numbers
    )
    return *grads, None, None, None, None


twice_differentiable("radial_basis", _radial_basis_backward, _radial_basis_double_backward, tensors=4, cotangents=2)
depends_on("radial_basis", result=1, inputs=(0,))  # radial: on the distance, not on the frequency
