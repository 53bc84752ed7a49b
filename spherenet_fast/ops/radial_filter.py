"""Messages times a linear function of the distance basis."""

from torch import Tensor

from ._register import compiled, fake, twice_differentiable, wanted_gradients


def radial_filter(x: Tensor, bessel: Tensor, weight: Tensor) -> Tensor:
    """x * (bessel weight^T): messages times a linear function of the distance basis, which is never stored.

    x [E, H]; bessel [E, K], the distance basis, K <= 16; weight [H, K]. Returns [E, H], twice differentiable.
    """
    if not isinstance(x, Tensor):  # it stands for one while a chain of layers is recorded
        return x.filtered(bessel, weight)
    return compiled.radial_filter(x, bessel, weight)


@fake("radial_filter")
def _(x, bessel, weight):
    return x.new_empty(x.shape)


def _empty_if(wanted, tensor):
    return tensor.new_empty(tensor.shape if wanted else (0,))


@fake("radial_filter_backward")
def _(grad_out, x, bessel, weight, for_bessel, for_weight):
    return x.new_empty(x.shape), _empty_if(for_bessel, bessel), _empty_if(for_weight, weight)


@fake("radial_filter_double_backward")
def _(grad_grad_x, grad_grad_bessel, grad_grad_weight, grad_out, x, bessel, weight, for_bessel, for_weight):
    grads = _empty_if(for_bessel, bessel), _empty_if(for_weight, weight)
    return x.new_empty(x.shape), x.new_empty(x.shape), *grads


def _radial_filter_backward(ctx, grad_out):
    if grad_out is None:
        return None, None, None
    wanted = wanted_gradients(ctx)
    grads = compiled.radial_filter_backward(grad_out, *ctx.saved_tensors, *wanted[1:])
    return tuple(grad if yes else None for grad, yes in zip(grads, wanted, strict=True))


def _radial_filter_double_backward(ctx, *tangents):
    if all(tangent is None for tangent in tangents):
        return (None,) * 6
    wanted = wanted_gradients(ctx)[:4]
    # The backward operator returns an empty tensor for what nobody asked: its cotangent says nothing.
    shapes = (tensor.shape for tensor in ctx.saved_tensors[1:])
    tangents = [None if t is None or t.shape != shape else t for t, shape in zip(tangents, shapes, strict=True)]
    grads = compiled.radial_filter_double_backward(*tangents, *ctx.saved_tensors, *wanted[2:])
    return *(grad if yes else None for grad, yes in zip(grads, wanted, strict=True)), None, None


twice_differentiable("radial_filter", _radial_filter_backward, _radial_filter_double_backward, tensors=3)
