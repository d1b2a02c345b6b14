"""Colours for labels that people who see fewer colours tell apart too.

The seven of Okabe and Ito that stand out from grey scans; beyond seven labels they come again lighter, then
darker. A label keeps its colour whatever else is there, so that the heart is the same in every scan.
"""

OKABE_ITO = ("#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#f0e442", "#d55e00", "#0072b2")
_BLENDS = ((0.0, 0), (0.45, 255), (0.4, 0))  # how much of which grey: as they are, lighter, darker

Colour = tuple[int, int, int]


def label_colour(label: int) -> Colour:
    """The red, green and blue (0 to 255) of a label."""
    turn, place = divmod((label - 1) % (len(OKABE_ITO) * len(_BLENDS)), len(OKABE_ITO))
    share, grey = _BLENDS[turn]
    parts = (int(OKABE_ITO[place][at : at + 2], 16) for at in (1, 3, 5))
    red, green, blue = (round((1 - share) * part + share * grey) for part in parts)
    return red, green, blue
