"""Figures that papers publish, beside which ours are shown. PSNR on the Y channel, scale shaved.

Sources: the systems' papers: FSRCNN (Dong et al. 2016), VDSR (Kim et al. 2016), LapSRN (Lai et al.
2017), SRResNet (Ledig et al. 2017), EDSR (Lim et al. 2017); where these have no figure for a set or
scale, or another protocol, and for SRCNN (Dong et al. 2014), ESPCN (Shi et al. 2016), EDSR-baseline
and bicubic, the tables in which VDSR, LapSRN, EDSR, CARN (Ahn et al. 2018) and surveys compare
systems.
"""

# System: set: PSNR at x2, x3, x4; None where these have no figure.
PUBLISHED: dict[str, dict[str, tuple[float | None, float | None, float | None]]] = {
    "bicubic": {
        "set5": (33.66, 30.39, 28.42),
        "set14": (30.24, 27.55, 26.00),
        "b100": (29.56, 27.21, 25.96),
        "urban100": (26.88, 24.46, 23.14),
    },
    "SRCNN": {
        "set5": (36.66, 32.75, 30.48),
        "set14": (32.42, 29.28, 27.49),
        "b100": (31.36, 28.41, 26.90),
        "urban100": (29.50, 26.24, 24.52),
    },
    "FSRCNN": {
        "set5": (37.00, 33.16, 30.71),
        "set14": (32.63, 29.43, 27.59),
        "b100": (31.53, 28.53, 26.98),
        "urban100": (29.88, 26.43, 24.62),
    },
    "ESPCN": {
        "set5": (36.83, None, 30.52),
        "set14": (32.40, None, 27.42),
        "b100": (31.29, None, 26.87),
        "urban100": (29.48, None, 24.39),
    },
    "VDSR": {
        "set5": (37.53, 33.66, 31.35),
        "set14": (33.03, 29.77, 28.01),
        "b100": (31.90, 28.82, 27.29),
        "urban100": (30.76, 27.14, 25.18),
    },
    "LapSRN": {
        "set5": (37.52, 33.82, 31.54),
        "set14": (33.08, 29.87, 28.19),
        "b100": (31.80, 28.82, 27.32),
        "urban100": (30.41, 27.07, 25.21),
    },
    "SRResNet": {
        "set5": (None, None, 32.05),
        "set14": (None, None, 28.49),
        "b100": (None, None, 27.58),
    },
    "EDSR-baseline": {
        "set5": (37.99, 34.37, 32.09),
        "set14": (33.57, 30.28, 28.58),
        "b100": (32.16, 29.09, 27.57),
        "urban100": (31.98, 28.15, 26.04),
    },
    "EDSR": {
        "set5": (38.11, 34.65, 32.46),
        "set14": (33.92, 30.52, 28.80),
        "b100": (32.32, 29.25, 27.71),
        "urban100": (32.93, 28.80, 26.64),
    },
}


def published(system: str, dataset: str, scale: int) -> float | None:
    """A published PSNR in dB, or None."""
    figures = PUBLISHED.get(system, {}).get(dataset)
    return None if figures is None or not 2 <= scale <= 4 else figures[scale - 2]
