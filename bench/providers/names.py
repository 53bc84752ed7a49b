"""Providers as tables and figures call them, and which are compared with which."""

TITLES = {
    "ours": "spherenet_fast", "floor": "linear floor", "reference": "plain PyTorch",
    "dig_spherenet": "released code (DIG)", "pyg_schnet": "PyG SchNet", "pyg_dimenet++": "PyG DimeNet++",
}  # fmt: skip
# The case "models", in which each is beside the other implementation of the same model.
COMPARED = {
    "ours": None, "no_torsion": None, "no_angle": None, "dimenet++": "pyg_dimenet++", "dimenet": "pyg_dimenet",
    "schnet": "pyg_schnet", "physnet": None,
}  # fmt: skip
MODELS = {
    "ours": "SphereNet", "no_torsion": "SphereNet without φ", "no_angle": "SphereNet without (θ, φ)",
    "dimenet++": "DimeNet++", "dimenet": "DimeNet", "schnet": "SchNet", "physnet": "PhysNet",
}  # fmt: skip
