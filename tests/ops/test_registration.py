"""Every compiled operator under torch.library.opcheck: schema, fake, derivatives, and traced by AOT autograd."""

import pytest
import torch
from compiled_calls import REGISTERED, calls, each_tensor
from operator_cases import CASES, DIFFERENTIABLE, bessel_constants, operator_of

from spherenet_fast import _library
from spherenet_fast.ops import triton_kernels
from spherenet_fast.ops._register import CPU_ONLY

SAMPLES = {dtype: calls(dtype) for dtype in (torch.float32, torch.float64)}
CALLS = [
    pytest.param(name, arguments, id=f"{name}-{number}-{str(dtype)[6:]}")
    for dtype, operators in SAMPLES.items()
    for name, lists in operators.items()
    for number, arguments in enumerate(lists)
]
_WITHOUT_DERIVATIVE = {operator_of(name) for name in set(CASES) - set(DIFFERENTIABLE)}
_BY_FUNCTIONS = {name for name in REGISTERED if name.startswith("row_chain")}  # derivatives that opcheck cannot see
WITH_DERIVATIVE = [
    name for name in SAMPLES[torch.float32] if "double" not in name and name not in _WITHOUT_DERIVATIVE | _BY_FUNCTIONS
]


def test_no_operator_is_left_out():
    assert REGISTERED and all(all(operators.values()) for operators in SAMPLES.values())


@pytest.mark.parametrize("name, arguments", CALLS)
def test_without_derivatives(name, arguments):
    torch.library.opcheck(getattr(torch.ops.spherenet_fast, name).default, tuple(arguments))


def requiring_grad(arguments, dtype):
    """Copies of the arguments: those in dtype require derivatives, except roots and scale of the radial basis."""
    constants = [bessel.shape for bessel in bessel_constants(3, 2)]
    return tuple(
        value.clone().requires_grad_()
        if isinstance(value, torch.Tensor) and value.dtype == dtype and value.shape not in constants
        else value
        for value in arguments
    )


@pytest.mark.parametrize("dtype", SAMPLES)
@pytest.mark.parametrize("name", WITH_DERIVATIVE)
def test_with_derivatives(name, dtype):
    for arguments in SAMPLES[dtype][name]:
        given = requiring_grad(arguments, dtype)
        assert any(isinstance(value, torch.Tensor) and value.requires_grad for value in given)
        torch.library.opcheck(getattr(torch.ops.spherenet_fast, name).default, given)


def test_strides_are_as_the_fakes_say():
    """Compiled code believes the fakes: results are contiguous, also where the inputs are not."""
    with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fakes = {}
        for name, lists in SAMPLES[torch.float64].items():
            given = [each_tensor(lambda tensor: mode.from_tensor(_transposed(tensor)), value) for value in lists[0]]
            fakes[name] = getattr(torch.ops.spherenet_fast, name)(*given)
    for name, lists in SAMPLES[torch.float64].items():
        found = getattr(torch.ops.spherenet_fast, name)(*[each_tensor(_transposed, value) for value in lists[0]])
        for real, fake in zip(_outputs(found), _outputs(fakes[name]), strict=True):
            assert (real.shape, real.stride(), real.dtype) == (fake.shape, fake.stride(), fake.dtype), name


def _transposed(value):
    """The same matrix, column after column in memory."""
    return value.T.contiguous().T if value.dim() == 2 else value


def _outputs(found):
    return found if isinstance(found, tuple | list) else (found,)


def test_every_operator_serves_the_same_devices():
    """The library is built with all CUDA kernels or with none; it loads without a GPU, and without torch's CUDA."""

    def with_kernel(device):
        has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
        return {name for name in REGISTERED if has_kernel(f"spherenet_fast::{name}", device)}

    assert with_kernel("CPU") == REGISTERED
    of_library = with_kernel("CUDA") - set(triton_kernels.NAMES)
    assert of_library == (REGISTERED - CPU_ONLY if _library.has_cuda_kernels() else set())
    assert with_kernel("CUDA") - of_library == (set(triton_kernels.NAMES) if triton_kernels.AVAILABLE else set())
