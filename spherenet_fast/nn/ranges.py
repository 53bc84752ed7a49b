"""Smallest and largest value of atomic numbers and of every integer hyper-parameter, for models, data and configs."""

MAX_ATOMIC_NUMBER = 94
NUM_ELEMENTS = MAX_ATOMIC_NUMBER + 1  # rows of an embedding; row 0 stays unused

RANGES = {
    name: (least, most)
    for least, most, names in (
        (1, 100, "num_layers num_blocks num_interactions"),
        (1, 4096, "hidden_channels out_channels int_emb_size out_emb_channels num_filters"),
        (1, 1024, "basis_emb_size basis_emb_size_dist basis_emb_size_angle basis_emb_size_torsion num_bilinear"),
        (0, 100, "num_before_skip num_after_skip num_output_layers"),
        (0, 100, "num_residual_interaction num_residual_atomic num_residual_output"),
        (2, 4096, "num_gaussians"),
        (1, 63, "envelope_exponent"),
        (1, 8, "num_spherical"),
        (1, 16, "num_radial"),
    )
    for name in names.split()
}
MAX_NUM_NEIGHBORS = (1, 2**31 - 1)  # or None
